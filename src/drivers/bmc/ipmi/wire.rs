//! RMCP and RMCP+ packets and IPMI LAN messages as bytes: built and taken apart, nothing else.
//!
//! Leaves out keys (`crypto`) and order (`session`). No input makes it panic: what does not read is `None`.
//! Shown by the tests below and by the peers of `tests/ipmi.rs`.

/// RMCP header: version 1.0, reserved, no acknowledge, class IPMI (IPMI 2.0, table 13-1).
pub(crate) const RMCP_IPMI: [u8; 4] = [0x06, 0x00, 0xff, 0x07];
/// Authentication type of an RMCP+ session header (IPMI 2.0, table 13-8).
pub(crate) const AUTH_RMCP_PLUS: u8 = 0x06;
/// Where the authenticated part of a packet starts: behind the RMCP header.
pub(crate) const AUTHENTICATED_FROM: usize = 4;
/// RMCP header and RMCP+ session header.
pub(crate) const HEADER: usize = 16;

/// Payload types (IPMI 2.0, table 13-16).
pub(crate) const PAYLOAD_IPMI: u8 = 0x00;
pub(crate) const OPEN_REQUEST: u8 = 0x10;
pub(crate) const OPEN_RESPONSE: u8 = 0x11;
pub(crate) const RAKP_1: u8 = 0x12;
pub(crate) const RAKP_2: u8 = 0x13;
pub(crate) const RAKP_3: u8 = 0x14;
pub(crate) const RAKP_4: u8 = 0x15;

/// Slave address of a BMC, and the software id of a remote console (IPMI 2.0, 5.4 and 5.5).
pub(crate) const BMC_ADDRESS: u8 = 0x20;
pub(crate) const CONSOLE_ADDRESS: u8 = 0x81;

/// An RMCP+ packet, taken apart but not verified.
///
/// ```text
///  0        4     5     6          10         14      16
///  06 00 ff 07 | 06 | ea+type | session id | sequence | length | payload | ff.. pad | pad length | 07 | auth code
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Packet<'a> {
    pub encrypted: bool,
    pub authenticated: bool,
    pub payload_type: u8,
    pub session: u32,
    pub sequence: u32,
    pub payload: &'a [u8],
    /// The whole datagram, for the authentication code.
    pub datagram: &'a [u8],
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

pub(crate) fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

/// An RMCP+ packet, or nothing where the bytes are none.
pub(crate) fn packet(datagram: &[u8]) -> Option<Packet<'_>> {
    let header = datagram.get(..HEADER)?;
    if header[0] != RMCP_IPMI[0] || header[3] != RMCP_IPMI[3] || header[4] != AUTH_RMCP_PLUS {
        return None;
    }
    let length = usize::from(u16::from_le_bytes([header[14], header[15]]));
    Some(Packet {
        encrypted: header[5] & 0x80 != 0,
        authenticated: header[5] & 0x40 != 0,
        payload_type: header[5] & 0x3f,
        session: u32_at(header, 6)?,
        sequence: u32_at(header, 10)?,
        payload: datagram.get(HEADER..HEADER + length)?,
        datagram,
    })
}

/// The first bytes of a packet. `kind` carries the two flag bits.
pub(crate) fn header(kind: u8, session: u32, sequence: u32, length: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER + length + 40);
    out.extend_from_slice(&RMCP_IPMI);
    out.extend_from_slice(&[AUTH_RMCP_PLUS, kind]);
    out.extend_from_slice(&session.to_le_bytes());
    out.extend_from_slice(&sequence.to_le_bytes());
    out.extend_from_slice(&(length as u16).to_le_bytes());
    out
}

/// A packet outside of a session: the messages of the handshake.
pub(crate) fn bare(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = header(kind, 0, 0, payload.len());
    out.extend_from_slice(payload);
    out
}

/// The console's session id that a packet from a BMC is for: in the header inside a session, in the payload of the handshake.
pub(crate) fn addressee(packet: &Packet<'_>) -> Option<u32> {
    match packet.payload_type {
        OPEN_RESPONSE | RAKP_2 | RAKP_4 => u32_at(packet.payload, 4),
        _ => Some(packet.session),
    }
}

/// Makes a sum zero modulo 256 (IPMI 2.0, 13.8: 2's complement checksum).
pub(crate) fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0u8, |sum, b| sum.wrapping_add(*b)).wrapping_neg()
}

/// An IPMI LAN message (IPMI 2.0, table 13-8): a request or a response, told apart by the network function's lowest bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LanMessage<'a> {
    pub netfn: u8,
    pub rq_seq: u8,
    pub cmd: u8,
    /// Of a response: with the completion code first.
    pub data: &'a [u8],
}

/// The checksums are not observed: inside a session the authentication code says more, and some boards get them wrong
/// (FreeIPMI's `nochecksumcheck`: Supermicro X9SCM-iiF, X9DRi-F).
pub(crate) fn lan_message(payload: &[u8]) -> Option<LanMessage<'_>> {
    let (&[_to, netfn, _check, _from, seq, cmd], rest) = payload.split_first_chunk::<6>()?;
    let (_check, data) = rest.split_last()?;
    Some(LanMessage { netfn: netfn >> 2, rq_seq: seq >> 2, cmd, data })
}

/// The bytes of a message: `to` and `from` are the addresses.
pub(crate) fn lan_bytes(to: u8, from: u8, message: &LanMessage<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(7 + message.data.len());
    out.extend_from_slice(&[to, message.netfn << 2]);
    out.push(checksum(&out));
    out.extend_from_slice(&[from, message.rq_seq << 2, message.cmd]);
    out.extend_from_slice(message.data);
    out.push(checksum(&out[3..]));
    out
}

/// A status of Open Session and RAKP (IPMI 2.0, table 13-15).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status(pub u8);

impl Status {
    pub const OK: Status = Status(0x00);
    pub const NO_RESOURCES: Status = Status(0x01);
    pub const INVALID_SESSION: Status = Status(0x02);
    pub const INACTIVE_SESSION: Status = Status(0x08);
    pub const INVALID_ROLE: Status = Status(0x09);
    pub const UNAUTHORIZED_ROLE: Status = Status(0x0a);
    pub const NO_RESOURCES_AT_ROLE: Status = Status(0x0b);
    pub const INVALID_NAME_LENGTH: Status = Status(0x0c);
    pub const UNAUTHORIZED_NAME: Status = Status(0x0d);
    pub const INVALID_CHECK: Status = Status(0x0f);
    pub const NO_SUITE: Status = Status(0x11);
    pub const ILLEGAL_PARAMETER: Status = Status(0x12);

    /// Whether it says that the proposed algorithms are not had. 12h (illegal parameter) says so only of Open Session.
    pub fn about_suite(self) -> bool {
        matches!(self.0, 0x04..=0x07 | 0x10 | 0x11)
    }

    pub fn words(self) -> &'static str {
        match self.0 {
            0x00 => "no errors",
            0x01 => "insufficient resources to create a session",
            0x02 => "invalid session id",
            0x03 => "invalid payload type",
            0x04 => "invalid authentication algorithm",
            0x05 => "invalid integrity algorithm",
            0x06 => "no matching authentication payload",
            0x07 => "no matching integrity payload",
            0x08 => "inactive session id",
            0x09 => "invalid role",
            0x0a => "unauthorized role or privilege level requested",
            0x0b => "insufficient resources to create a session at the requested role",
            0x0c => "invalid name length",
            0x0d => "unauthorized name",
            0x0e => "unauthorized GUID",
            0x0f => "invalid integrity check value",
            0x10 => "invalid confidentiality algorithm",
            0x11 => "no cipher suite match with proposed security algorithms",
            0x12 => "illegal or unrecognized parameter",
            _ => "reserved status",
        }
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (status {:02X}h)", self.words(), self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_and_its_checksums() {
        // Get Device ID, as in IPMI 2.0's examples: 20 18 c8 81 .. 01 ..
        let bytes = lan_bytes(BMC_ADDRESS, CONSOLE_ADDRESS, &LanMessage { netfn: 0x06, rq_seq: 1, cmd: 0x01, data: &[] });
        assert_eq!(bytes, [0x20, 0x18, 0xc8, 0x81, 0x04, 0x01, 0x7a]);
        assert_eq!(lan_message(&bytes), Some(LanMessage { netfn: 6, rq_seq: 1, cmd: 1, data: &[] }));
    }

    #[test]
    fn no_prefix_of_a_packet_panics() {
        let whole = bare(RAKP_2, &[7; 40]);
        assert_eq!(packet(&whole).and_then(|p| addressee(&p)), Some(0x0707_0707));
        for end in 0..whole.len() {
            assert_eq!(packet(&whole[..end]), None);
            let _ = lan_message(&whole[..end]);
        }
    }
}
