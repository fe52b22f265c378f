//! How the demo is shown: a page that is redrawn on a terminal, lines elsewhere.
//!
//! Leaves out: finding things out (`site`). Invariant: the page is never larger than the terminal, and the terminal is left as it was found.
//! Shown by `tests/demo.rs`.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use tokio::time::{Instant, sleep};

use super::super::client::Client;
use super::super::failure::Failure;
use super::super::output::{clean, colour, print};
use super::examples;
use super::site::{Site, Standing};
use crate::model::status::Event;
use crate::model::{Kind, Object};
use crate::server::api::columns::drift;

const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Looks in a row at which everything must be at rest before the demo counts as ready.
const STEADY: u32 = 4;

/// Lines of a terminal from which on the page has headings and an introduction.
const ROOMY: usize = 32;

/// When the demo ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Never,
    After(Duration),
    AtRest { within: Duration },
}

/// What is shown, so far.
pub(super) struct View {
    server: String,
    intro: String,
    ending: Ending,
    begun: Instant,
    /// Each event with the time since the beginning at which it was seen.
    told: Vec<(Duration, Event)>,
    rest: u32,
    /// When everything was at rest for the first time.
    ready_after: Option<Duration>,
}

impl View {
    pub(super) fn new(server: &str, objects: &[Object], ending: Ending) -> View {
        let count = |kind: Kind| objects.iter().filter(|o| o.kind() == kind).count();
        let intro = format!(
            "A simulated rack, in a process of its own: {} switches that speak SNMP,\n\
             {} servers of several vendors whose BMCs speak IPMI. All ports are in VLAN 1,\n\
             all servers are off, but {}. The manifests of examples/ want other things.",
            count(Kind::Switch),
            count(Kind::Server),
            examples::FOUND_RUNNING,
        );
        View { server: server.to_owned(), intro, ending, begun: Instant::now(), told: Vec::new(), rest: 0, ready_after: None }
    }

    pub(super) async fn run(mut self, client: &Client) -> Result<(), Failure> {
        let screen = std::io::stdout().is_terminal().then(Screen::enter);
        if screen.is_none() {
            print(&format!("{}\n\n{}\n", self.intro, self.hints()))?;
        }
        let (site, outcome) = loop {
            let site = Site::look(client).await?;
            let fresh = self.learn(&site);
            match &screen {
                Some(screen) => screen.draw(&self.page(&site))?,
                None => self.lines(fresh)?,
            }
            if let Some(outcome) = self.over(&site) {
                break (site, outcome);
            }
            sleep(LOOK_EVERY).await;
        };
        drop(screen);
        print(&format!("\n{}\n", self.tables(&site).join("\n")))?;
        if outcome.is_ok() {
            print(&format!("\n{}\n", self.summary(&site)))?;
        }
        outcome
    }

    /// Takes note of what happened; how many events are new.
    fn learn(&mut self, site: &Site) -> usize {
        let now = self.begun.elapsed();
        let fresh = site.events.get(self.told.len()..).unwrap_or_default();
        self.told.extend(fresh.iter().map(|event| (now, event.clone())));
        self.rest = if site.at_rest() { self.rest + 1 } else { 0 };
        if self.rest >= STEADY && self.ready_after.is_none() {
            self.ready_after = Some(now);
        }
        fresh.len()
    }

    fn over(&self, site: &Site) -> Option<Result<(), Failure>> {
        match self.ending {
            Ending::Never => None,
            Ending::After(period) => (self.begun.elapsed() >= period).then_some(Ok(())),
            Ending::AtRest { .. } if self.rest >= STEADY => Some(Ok(())),
            Ending::AtRest { within } => (self.begun.elapsed() >= within).then(|| {
                let open = site.bindings.iter().filter_map(|b| match &b.standing {
                    Standing::AsDesired => None,
                    Standing::Person(_, why) | Standing::Underway(why) => Some(format!("\n  {}: {}", b.name, clean(why))),
                });
                Err(Failure::failed(format!("the rack is not as desired after {}s:{}", within.as_secs(), open.collect::<String>())))
            }),
        }
    }

    // ---- lines --------------------------------------------------------------------------------------------------------------------

    fn lines(&self, fresh: usize) -> Result<(), Failure> {
        let first = self.told.len().saturating_sub(fresh);
        let text: String = self.told.iter().skip(first).filter(|(_, e)| worth(e)).map(|t| format!("{}\n", story(t))).collect();
        Ok(print(&text)?)
    }

    fn hints(&self) -> String {
        let me = this_program();
        format!(
            "Ctrl-C ends it. In another terminal break something and watch the repair:\n  {me} demo break port        (or power, or bmc)\n\
             and look around: export EMBODY_SERVER={}\n  {me} get bindings           (or servers, ports; why sql; plan; events)",
            self.server
        )
    }

    fn summary(&self, site: &Site) -> String {
        let mut out = format!("{} of {} bindings are as desired", site.as_desired(), site.bindings.len());
        if let Some(after) = self.ready_after {
            out.push_str(&format!(" after {} s", after.as_secs()));
        }
        for bound in &site.bindings {
            if let Standing::Person(..) = bound.standing {
                out.push_str(&format!("; {} waits for a person: {} approve {}", bound.name, this_program(), bound.name));
            }
        }
        out
    }

    // ---- the page -----------------------------------------------------------------------------------------------------------------

    fn page(&self, site: &Site) -> Vec<String> {
        let (width, height) = terminal_size::terminal_size().map_or((100, 40), |(w, h)| (usize::from(w.0), usize::from(h.0)));
        let seconds = self.begun.elapsed().as_secs();
        let head = format!("{}   {}:{:02}", paint("embody demo", BOLD), seconds / 60, seconds % 60);
        let mut page = vec![head];
        if height >= ROOMY {
            page.extend(self.intro.lines().map(|l| paint(l, DIM)));
        }
        page.push(String::new());
        page.extend(self.tables(site));
        page.push(String::new());
        let mut foot = vec![paint(&self.summary(site), if site.at_rest() { GREEN } else { PLAIN })];
        foot.extend(self.hints().lines().map(|l| paint(l, DIM)));
        if height >= ROOMY {
            foot.insert(0, String::new());
        }
        // The log takes the room that is left; one line stays empty, since a full page would scroll.
        let room = height.saturating_sub(page.len() + foot.len() + 1 + usize::from(height >= ROOMY));
        let told: Vec<&(Duration, Event)> = self.told.iter().filter(|(_, e)| worth(e)).collect();
        if room > 0 {
            if height >= ROOMY {
                page.push(paint("WHAT HAPPENED", BOLD));
            }
            page.extend(told[told.len().saturating_sub(room)..].iter().map(|t| story(t)));
        }
        page.extend(foot);
        page.truncate(height.saturating_sub(1));
        page.iter().map(|line| cut(line, width)).collect()
    }

    fn tables(&self, site: &Site) -> Vec<String> {
        let heads = ["BINDING", "PERSONA", "SERVER", "POWER", "BOOT", "PORTS", ""].map(|h| (h.to_owned(), BOLD)).to_vec();
        let rows = site.bindings.iter().map(|b| {
            let (good, all) = site.network(&b.server);
            let (note, style) = match &b.standing {
                Standing::AsDesired => ("as desired".to_owned(), GREEN),
                Standing::Person(reason, _) if reason == "ApprovalNeeded" => {
                    ("was found running: not touched before a person approves".to_owned(), YELLOW)
                }
                Standing::Person(_, why) => (why.clone(), YELLOW),
                Standing::Underway(why) => (why.clone(), PLAIN),
            };
            let differs = |text: &str| if text.contains('→') || text == "Unknown" { YELLOW } else { PLAIN };
            vec![
                (b.name.clone(), PLAIN),
                (b.persona.clone(), PLAIN),
                (b.server.clone(), PLAIN),
                (b.power.clone(), differs(&b.power)),
                (b.boot.clone(), differs(&b.boot)),
                (format!("{good}/{all}"), if good < all { YELLOW } else { PLAIN }),
                (note, style),
            ]
        });
        let mut out = aligned([heads].into_iter().chain(rows).collect());
        out.push(String::new());
        out.push(paint("SWITCH PORTS AND THEIR VLANS, have→want, +t(tagged)", BOLD));
        let mut switches: BTreeMap<String, Vec<Cell>> = BTreeMap::new();
        let mut ports: Vec<_> = site.ports.iter().collect();
        ports.sort_by_key(|row| (&row.switch, row.port.len(), &row.port));
        for row in ports {
            let short = row.port.rsplit('/').next().unwrap_or(&row.port);
            let (have, want) = (row.have.as_deref().unwrap_or("?"), row.want.as_deref().unwrap_or("-"));
            let style = if have == want { GREEN } else { YELLOW };
            switches
                .entry(row.switch.to_string())
                .or_insert_with(|| vec![(row.switch.to_string(), PLAIN)])
                .push((format!("/{short} {}", drift(have, want, false)), style));
        }
        out.extend(aligned(switches.into_values().collect()));
        out
    }
}

type Cell = (String, Style);

const PLAIN: Style = Style::new();
const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const GREEN: Style = Style::new().fg_color(Some(anstyle::Color::Ansi(AnsiColor::Green)));
const YELLOW: Style = Style::new().fg_color(Some(anstyle::Color::Ansi(AnsiColor::Yellow)));

fn paint(text: &str, style: Style) -> String {
    if colour() && style != PLAIN && !text.is_empty() { format!("{style}{text}{style:#}") } else { text.to_owned() }
}

/// Columns as wide as their widest cell.
fn aligned(rows: Vec<Vec<Cell>>) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |i: usize| rows.iter().filter_map(|r| r.get(i)).map(|(text, _)| text.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<Cell>| {
        let cells = row.iter().zip(&widths).map(|((text, style), width)| {
            let pad = " ".repeat(width.saturating_sub(text.chars().count()) + 3);
            format!("{}{pad}", paint(&clean(text), *style))
        });
        cells.collect::<String>().trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

/// As much of a line as fits; escape sequences take no room.
fn cut(line: &str, width: usize) -> String {
    let (mut out, mut room, mut escape) = (String::new(), width, false);
    for c in line.chars() {
        match (escape, c) {
            (false, '\u{1b}') => escape = true,
            (true, 'm') => escape = false,
            (true, _) => {}
            (false, _) if room == 0 => continue,
            (false, _) => room -= 1,
        }
        out.push(c);
    }
    out
}

/// Why a binding is not ready, where only a person can end it: the reasons that pass by themselves would fill the page.
const FOR_PEOPLE: [&str; 7] = ["ApprovalNeeded", "Paused", "Held", "Contended", "BreakerOpen", "CredentialsRefused", "IdentityChanged"];

/// What is worth a line: what was done, what could not be reached, what waits for a person, what is or ceased to be as desired.
pub(super) fn worth(event: &Event) -> bool {
    let reason_only = event.kind == "Warning" && event.regarding.starts_with("Binding/") && !event.message.starts_with("no longer ready");
    !reason_only || FOR_PEOPLE.contains(&event.reason.as_str())
}

/// `apache: SNMP tor-1 Gi1/0/1 1 → 110 (…)`.
pub(super) fn sentence(event: &Event) -> String {
    let name = event.regarding.split_once('/').map_or(event.regarding.as_str(), |(_, name)| name);
    // What people said is told in the message without the verb: `by root: …`.
    let verb = if event.message.starts_with("by ") { format!("{} ", event.reason) } else { String::new() };
    format!("{name:<10} {verb}{}", clean(&event.message))
}

fn story((at, event): &(Duration, Event)) -> String {
    let style = if event.kind == "Warning" { YELLOW } else { PLAIN };
    let seconds = at.as_secs();
    format!("{} {}", paint(&format!("{}:{:02}", seconds / 60, seconds % 60), DIM), paint(&sentence(event), style))
}

/// How this program is called from here.
pub(super) fn this_program() -> String {
    let Ok(program) = std::env::current_exe() else { return "embody".to_owned() };
    let on_path = std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join("embody") == program));
    let here = std::env::current_dir().ok().and_then(|dir| program.strip_prefix(dir).map(|p| p.display().to_string()).ok());
    match (on_path, here) {
        (true, _) => "embody".to_owned(),
        (false, Some(relative)) => relative,
        (false, None) => program.display().to_string(),
    }
}

/// The terminal's other screen; dropping it brings the first one back.
struct Screen;

impl Screen {
    fn enter() -> Screen {
        // Alternate screen, cursor hidden (xterm, DEC private modes 1049 and 25).
        drop(print("\u{1b}[?1049h\u{1b}[?25l"));
        Screen
    }

    fn draw(&self, page: &[String]) -> Result<(), Failure> {
        let body: String = page.iter().map(|line| format!("{line}\u{1b}[K\r\n")).collect();
        Ok(print(&format!("\u{1b}[H{body}\u{1b}[J"))?)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let mut out = std::io::stdout().lock();
        drop(out.write_all(b"\x1b[?25h\x1b[?1049l").and_then(|()| out.flush()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_where_it_is_seen() {
        assert_eq!(cut("abcdef", 4), "abcd");
        assert_eq!(cut("\u{1b}[1mab→d\u{1b}[0mef", 4), "\u{1b}[1mab→d\u{1b}[0m");
        assert_eq!(cut("ab", 4), "ab");
    }

    #[test]
    fn columns_stand_below_each_other() {
        let row = |cells: &[&str]| cells.iter().map(|c| ((*c).to_owned(), PLAIN)).collect::<Vec<_>>();
        assert_eq!(aligned(vec![row(&["NAME", "POWER", ""]), row(&["a", "Off→On", "x"])]), ["NAME   POWER", "a      Off→On   x"]);
    }
}
