//! Every diagnostic's code, and the paragraph that `explain CODE` shows. A code is words, and stays what it is: people search for it.
//!
//! `tests/manifest.rs` holds that each code has a golden test and a paragraph.
// tidy: table

macro_rules! codes {
    ($($name:ident $code:literal $text:literal;)*) => {
        $(pub(crate) const $name: &str = $code;)*
        /// Every code with its paragraph, in the order in which a file meets them.
        pub const CODES: &[(&str, &str)] = &[$(($code, $text)),*];
    };
}

codes! {
FILE_UNREADABLE "file-unreadable" "A file or directory that was named cannot be read, is not UTF-8 text, or a directory holds no *.yaml or *.yml file. Nothing is applied, because what is missing might be what others refer to.";
FILE_TOO_LARGE "file-too-large" "A manifest file has at most 1 MiB. A thousand servers fit; split larger sets into several files and apply the directory.";
FOREIGN_FILE "foreign-file" "A warning: a file of a directory, which nobody named, holds no object of embody's: a kustomization.yaml, a compose file. It is left out. Patterns in a file `.embodyignore`, in the syntax of gitignore, say which files of a directory are not looked at.";
TOO_MANY_OBJECTS "too-many-objects" "One apply takes at most 50,000 objects.";
TOO_DEEP "too-deep" "A document nests deeper than 64 levels. No manifest needs that; a file that does is broken or hostile.";
ALIAS_REFUSED "alias-refused" "YAML aliases (`*name`) are not read: a few lines of them can stand for gigabytes. Write the value out at each place.";
YAML_SYNTAX "yaml-syntax" "The text is not YAML. The position is where the parser gave up; the cause is often on the line before: a tab, a missing space after a colon, an indentation that fits no level, a bracket or quote that is not closed.";
DUPLICATE_KEY "duplicate-key" "A map has the same key twice, at any depth, labels included. Which of the two is meant cannot be told, and other tools silently take the last.";
BOOLEAN_WORD "boolean-word" "A warning: the plain words on, off, yes and no are text here but booleans to tools that follow YAML 1.1 (kubectl, PyYAML, many linters). Put them in quotes.";
NUMBER_WORD "number-word" "A warning: a MAC address of decimal digits only, without quotes, is a number in base 60 to tools that follow YAML 1.1. Put MAC addresses in quotes.";
NOT_AN_OBJECT "not-an-object" "A document of a manifest is a map with apiVersion, kind, metadata and spec (or a `kind: List` of such maps).";
WRONG_API_VERSION "wrong-api-version" "This version reads `apiVersion: embody.dev/v1alpha1` and no other.";
UNKNOWN_KIND "unknown-kind" "The kinds are Policy, Secret, Network, Switch, Server, Persona and Binding.";
UNKNOWN_FIELD "unknown-field" "The object has a field that its kind does not have. It is refused and not ignored, because a misspelt desired state that is ignored looks like a desired state that is fulfilled. `explain KIND.spec` lists the fields.";
MISSING_FIELD "missing-field" "A field that must be there is not. `explain KIND.spec` marks the fields that are required.";
WRONG_TYPE "wrong-type" "A value has another type than the field: a number where text is expected, a text where a list is expected. Numbers and words that are meant as text go in quotes.";
BAD_VALUE "bad-value" "A value is of the right type but not one of those that the field can have. `explain` on the field lists them.";
BAD_NAME "bad-name" "Names are DNS subdomains (RFC 1123), as in Kubernetes: lower-case letters, digits, `-` and `.`, at most 253 characters, beginning and ending with a letter or digit.";
BAD_IMAGE_NAME "bad-image-name" "Images have a name and a version, NAME:VERSION: a name as objects have one, and letters, digits, `.`, `_` and `-`, at most 64, beginning with a letter or digit.";
BAD_VLAN "bad-vlan" "A VLAN id is a number from 1 to 4094; 0 and 4095 are reserved (IEEE 802.1Q).";
BAD_MAC "bad-mac" "A MAC address is six octets, such as \"00:17:a4:77:00:01\", also with `-` or as 0017.a477.0001. That of a NIC is a unicast address: not a group address (lowest bit of the first octet set), not all zeros.";
BAD_CIDR "bad-cidr" "A subnet is written in CIDR notation with the bits of the host part zero (10.1.20.0/24); an address of a NIC is written with its prefix length (10.1.20.21/24).";
BAD_ADDRESS "bad-address" "An address of a device is host, host:port or [v6]:port with a port from 1 to 65535; a gateway is an IP address without prefix length.";
BAD_PERIOD "bad-period" "A period is written with units, largest first: 90s, 2m, 1h30m, 100ms, at most 30d.";
BAD_SHARE "bad-share" "A share is a number (7) or a percentage (10%). Percentages round up and are at least 1.";
BAD_MEMORY "bad-memory" "An amount of memory is a number with a unit: 16Gi, 512Mi (1024), 16G (1000).";
INLINE_SECRET "inline-secret" "A password, community or key stands in an object that is no Secret. Manifests are copied, committed and shown; put it in a Secret, best with `from:` so that the file holds no secret either, and name that Secret with `secretRef`.";
ONE_OF "one-of" "Of some fields exactly one must be given: a persona's root is one of image, nfs, iscsi, fc, ram, disk; a binding's target one of server, selector, platform; a Secret has stringData or from; `from` has file or env.";
NOT_YET_SUPPORTED "not-yet-supported" "The field is part of the model, but this version cannot act on it. It is refused and not ignored, so that nobody relies on what does not happen.";
WRITABLE_NOT_EXCLUSIVE "writable-not-exclusive" "A persona with a writable root says `exclusive: false`. Two bodies that write one file system destroy it: leave `exclusive` out, or use `mode: overlay` or `readOnly`.";
KERNEL_MISSING "kernel-missing" "A persona with the root nfs or ram boots a kernel that embody hands out; it must say which, in `kernel`.";
IMAGE_EXCLUDES "image-excludes" "A persona whose root is an image says more that the image has in itself: a kernel, an initrd, a revision. Only `kernel.cmdline` and `root.overlay` go beside it. Beside `kernel: { image: … }` there is a root on an NFS server of one's own, and no other initrd.";
READY_UNSAID "ready-unsaid" "A persona says when it is ready, and there is no agent of embody's that would wait for that and say it: its root is no image, or `agent: required` is missing.";
BAD_FILE "bad-file" "A file of a persona lies at an absolute path without `..`, outside of /proc, /sys and /dev, each path once, and has its content or a value of a Secret. In a template, `${…}` names one of its variables, and `$$` is `$`. Files are written by embody's agent, so the root is an image.";
NO_BOOT_SCRIPT "no-boot-script" "A path, name or kernel command line of a persona cannot stand in an iPXE script: it has a line break, or one of the characters that mean something to iPXE or a shell. Its machine would never boot, so it is refused.";
TWO_BOOT_NICS "two-boot-nics" "A server boots over one NIC, and a persona over one: at most one may say `boot: true`.";
DUPLICATE_NIC "duplicate-nic" "Two NICs or bonds of one server, two NICs of one persona, or two entries of one binding's `nics` have the same name.";
BAD_BOND "bad-bond" "A bond's members are NICs of the same server, each in one bond only and without `switch` and `port` of its own: the bond's `attach` says where the aggregation is. VLANs go to the aggregation, never to its members.";
INSECURE_SNMP "insecure-snmp" "SNMP v2c sends its community in the clear with every request, and whoever reads it can rewire the rack. Use v3, or say `insecure: true` to show that you know.";
UPLINKS_WITHOUT_CREATE "uplinks-without-create" "`uplinks` are ports on which VLANs that embody creates are tagged. Without `vlans: Create` none is created and an uplink is never written.";
POLICY_NAME "policy-name" "There is one Policy, and its name is `default`.";
POLL_TOO_FAST "poll-too-fast" "BMCs and switches are asked at most once a second; many BMCs suffer even from that.";
GATEWAY_OUTSIDE_SUBNET "gateway-outside-subnet" "A network's gateway is not an address inside its subnet, or there is no subnet that it could be in.";
ADDRESS_OUTSIDE_SUBNET "address-outside-subnet" "A NIC's fixed address is not inside the subnet of its untagged network (for a bound persona: of the network's segment at the switch where the NIC is), or is the address of the network or of its gateway.";
HALF_WIRED "half-wired" "A NIC names a switch without a port, or a port without a switch. A NIC with neither is fine: its network is not managed.";
UNKNOWN_NIC "unknown-nic" "A field names a NIC that the server or the persona does not have.";
OBJECT_TWICE "object-twice" "The file set holds two objects of one kind with one name. Which of them is meant cannot be told.";
UNKNOWN_REFERENCE "unknown-reference" "A field names an object that is neither in the files nor (unless only the files are observed) in the controller.";
PORT_WIRED_TWICE "port-wired-twice" "Two NICs or bonds are said to be plugged into one switch port. A cable has two ends: one of the two is wrong, and writing the port for either would rewire the other.";
MAC_TWICE "mac-twice" "Two NICs have the same MAC address. embody recognises a server by it when it asks for its boot.";
BMC_ADDRESS_TWICE "bmc-address-twice" "Two servers name the same BMC. Switching one off would switch off the other.";
SWITCH_ADDRESS_TWICE "switch-address-twice" "Two switches have the same address. Their desired state would be written to one device in turn.";
PERSONA_BOUND_TWICE "persona-bound-twice" "An exclusive persona (declared so, or with a writable root) is named by two bindings. It can have one live body.";
SERVER_BOUND_TWICE "server-bound-twice" "Two bindings target one server. A body lives one persona at a time; moving both in one apply is fine as long as the result is one each.";
ADDRESS_TWICE "address-twice" "Two personas, or two bindings, have one fixed IP address, or one is a network's gateway.";
ROOT_SHARED "root-shared" "Two personas have one root that one of them writes, or both write, and one directory may be inside the other. Give each its own, or use `mode: overlay`. A name and an address of an NFS server may be the same one: name it in one way.";
FIXED_IDENTITY_SHARED "fixed-identity-shared" "A persona that several bindings use has a fixed address or initiator name: all its bodies would have the same. Put addresses in the bindings' `nics`, and leave `initiator` out (each binding gets its own).";
HOSTNAME_TWICE "hostname-twice" "Two bindings give one host name to two bodies.";
NICS_DO_NOT_MATCH "nics-do-not-match" "It is not certain on which NIC of the server each NIC of the persona belongs. The rules, in this order: the binding's `interface`; the persona's boot NIC on the server's boot NIC; equal names; one left on each side. The order of a list never decides.";
PERSONA_DOES_NOT_FIT "persona-does-not-fit" "The persona needs another processor architecture, more processors or more memory than the server has.";
PROTECTED_VLAN "protected-vlan" "A network that a binding needs has, on the switch where the NIC is, a VLAN id that the switch lists in `protectedVlans`.";
PORT_NOT_MANAGED "port-not-managed" "A warning: a server that a binding uses is plugged into a port outside the switch's `manage.ports`, or the switch has no `manage`: the port is only observed, and stays as it is.";
VLAN_COLLISION "vlan-collision" "Two networks have one VLAN id on one switch: they are one network there, and their hosts would see each other.";
ADDRESS_IN_RANGE "address-in-range" "A fixed address is in the `range` of its network, out of which machines without one are given theirs: two could have it. Choose one outside.";
BOOT_NETWORK "boot-network" "What a Network's `boot` says cannot be told to machines: it needs an IPv4 `subnet` beside it; `range` and `router` are hosts inside that; `mode: full` needs a `range`; `mtu` is 576 to 9216; `domain` is a DNS domain.";
PERSONA_BOOTS_NOWHERE "persona-boots-nowhere" "A warning: firmware asks for its boot in untagged frames, over the NIC of the persona that says `boot: true`; where no untagged network with `boot` is there, nobody of embody's answers. Right only where another boot service does.";
HARDWARE_IN_PERSONA "hardware-in-persona" "A warning: a persona is free of hardware, and its kernel's command line names a console, a NIC or a MAC address, which is another one on the next machine. The console belongs into `console` of the Server, other arguments of one machine into its `kernelArgs`; the boot script itself adds `BOOTIF=` with the MAC address of the NIC that boots.";
SEVERAL_QUARANTINES "several-quarantines" "Two networks have the role quarantine. Released ports are put into the one of that role.";
SECRET_INCOMPLETE "secret-incomplete" "A Secret lacks keys that its user needs. A BMC's has username and password (and kg where the BMC has one); a switch's has community for v2c, or username, authProtocol, authPassword, privProtocol and privPassword for v3 (the last two may be left out where its `snmp` says `insecure: true`).";
SECRET_VALUE "secret-value" "A value of a Secret cannot be right: an IPMI user name has at most 16 bytes, a password or kg at most 20; SNMPv3 passwords have at least 8 characters (RFC 3414, 11.2); protocols are MD5, SHA, SHA-224, SHA-256, SHA-384, SHA-512 and DES, AES, AES-256. The value itself is never shown.";
}
