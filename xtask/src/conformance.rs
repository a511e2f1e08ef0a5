//! `cargo xtask conformance`: `docs/conformance.md`, the state of every rule of `docs/spec`.
//!
//! A rule is *done* when a test names it: a function called `lx_clone_43_...` shows LX-CLONE-43.
//! `docs/conformance.list` says of the others which test of another name shows them, or that they will
//! not be done, or not yet, and why; a rule that neither mentions is not yet done for no better reason
//! than that nobody has done it.
//! The page is never edited by hand.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::workspace;

const PAGE: &str = "docs/conformance.md";
const LIST: &str = "docs/conformance.list";
const NOTICE: &str =
    "<!-- Made by `cargo xtask conformance` from tests and docs/conformance.list. -->";

/// What the command takes.
#[derive(clap::Args)]
pub struct Options {
    /// Write nothing; fail if the page is not what it should be
    #[arg(long)]
    check: bool,
}

/// Writes the page, or looks whether it is up to date.
pub fn conformance(options: &Options) -> Result<ExitCode> {
    let root = workspace::root();
    let text = page(root)?;
    let path = root.join(PAGE);
    if !options.check {
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        println!("{PAGE}");
        return Ok(ExitCode::SUCCESS);
    }
    if std::fs::read_to_string(&path).unwrap_or_default() != text {
        bail!("{PAGE} is out of date: run `cargo xtask conformance`");
    }
    Ok(ExitCode::SUCCESS)
}

/// One rule and where it stands.
#[derive(Debug, PartialEq)]
struct Rule {
    id: String,
    /// The heading of its section.
    section: String,
    text: String,
}

/// Where a rule stands if no test names it.
#[derive(Clone, Debug, PartialEq)]
enum Verdict {
    /// A test of another name shows it.
    Done(String),
    NotYet(String),
    WillNot(String),
}

/// The functions of the tree.
#[derive(Default)]
struct Tests {
    /// By the rule that they name: file and function.
    by_rule: BTreeMap<String, BTreeSet<(String, String)>>,
    /// The file of each, by name.
    files: BTreeMap<String, String>,
}

/// The page's text.
pub fn page(root: &Path) -> Result<String> {
    let mut rules = Vec::new();
    for spec in ["docs/spec/linux-process.md", "docs/spec/win32-process.md"] {
        rules.extend(rules_of(&read(&root.join(spec))?));
    }
    let mut tests = Tests::default();
    for file in sources(root)? {
        let name = file.strip_prefix(root).unwrap_or(&file);
        collect_tests(&name.display().to_string(), &read(&file)?, &mut tests);
    }
    let list = verdicts(&read(&root.join(LIST))?)?;
    check_names(&rules, &tests, &list)?;
    Ok(render(&rules, &tests, &list))
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Every Rust file of the tree, in a fixed order.
fn sources(root: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if path.is_dir() {
                if name != "target" && !name.starts_with('.') {
                    folders.push(path);
                }
            } else if name.ends_with(".rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

/// The rules in a specification's tables, in their order.
fn rules_of(text: &str) -> Vec<Rule> {
    let mut section = String::new();
    let mut rules = Vec::new();
    for line in text.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            section = heading.to_string();
        }
        let mut cells = line.strip_prefix("| ").unwrap_or_default().split(" | ");
        let id = cells.next().unwrap_or_default();
        if is_id(id) {
            rules.push(Rule {
                id: id.to_string(),
                section: section.clone(),
                text: beginning(cells.next().unwrap_or_default()),
            });
        }
    }
    rules
}

/// True for `LX-CLONE-43` and its like.
fn is_id(text: &str) -> bool {
    let mut parts = text.split('-');
    let (Some("LX" | "W32"), Some(area), Some(number), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    !area.is_empty() && digits(number)
}

/// Enough of a rule to recognise it.
fn beginning(text: &str) -> String {
    const LENGTH: usize = 72;
    let text = text.replace(['`', '*'], "");
    if text.chars().count() <= LENGTH {
        return text;
    }
    let cut: String = text.chars().take(LENGTH).collect();
    let cut = cut.rsplit_once(' ').map_or(cut.as_str(), |(cut, _)| cut);
    format!("{} ...", cut.trim_end_matches([',', ';', ':', '.']))
}

/// Finds the functions of a source file.
fn collect_tests(file: &str, text: &str, tests: &mut Tests) {
    for line in text.lines() {
        let Some(rest) = line.trim_start().strip_prefix("fn ") else {
            continue;
        };
        let name: String = rest
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect();
        if let Some(id) = id_in(&name) {
            let test = (file.to_string(), name.clone());
            tests.by_rule.entry(id).or_default().insert(test);
        }
        tests.files.insert(name, file.to_string());
    }
}

/// `LX-CLONE-43` from `lx_clone_43_thread_without_sighand_is_einval`.
fn id_in(name: &str) -> Option<String> {
    let mut words = name.split('_');
    let id = format!("{}-{}-{}", words.next()?, words.next()?, words.next()?).to_uppercase();
    is_id(&id).then_some(id)
}

/// Reads the list: `RULE: not yet: why`, `RULE: will not: why` or `RULE: done: TEST`, where a rule that
/// ends in `*` stands for all that begin so. A `#` begins a comment.
fn verdicts(text: &str) -> Result<Vec<(String, Verdict)>> {
    let mut list = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mut parts = line.splitn(3, ": ");
        let (Some(rule), Some(state), Some(why)) = (parts.next(), parts.next(), parts.next())
        else {
            bail!("{LIST}: this line has no rule, state and reason: {line}");
        };
        let why = why.to_string();
        let verdict = match state {
            "done" => Verdict::Done(why),
            "not yet" => Verdict::NotYet(why),
            "will not" => Verdict::WillNot(why),
            _ => bail!("{LIST}: a rule is `done`, `not yet` or `will not`: {line}"),
        };
        list.push((rule.to_string(), verdict));
    }
    Ok(list)
}

/// What the list says of a rule: the most exact line counts.
fn verdict<'l>(id: &str, list: &'l [(String, Verdict)]) -> Option<&'l Verdict> {
    let matching = list.iter().filter(|(rule, _)| covers(rule, id));
    matching
        .max_by_key(|(rule, _)| rule.len())
        .map(|(_, verdict)| verdict)
}

fn covers(rule: &str, id: &str) -> bool {
    match rule.strip_suffix('*') {
        Some(beginning) => id.starts_with(beginning),
        None => rule == id,
    }
}

/// Tests and list must speak of rules that exist, and must not contradict each other.
fn check_names(rules: &[Rule], tests: &Tests, list: &[(String, Verdict)]) -> Result<()> {
    let known: BTreeSet<&str> = rules.iter().map(|rule| rule.id.as_str()).collect();
    for (id, tests) in &tests.by_rule {
        if !known.contains(id.as_str()) {
            bail!("no rule is called {id}, which these tests name: {tests:?}");
        }
    }
    for (rule, verdict) in list {
        if let Verdict::Done(test) = verdict
            && !tests.files.contains_key(test)
        {
            bail!("{LIST}: {rule} is shown by {test}, which is nowhere");
        }
        if !known.iter().any(|id| covers(rule, id)) {
            bail!("{LIST}: no rule is called {rule}");
        }
        if tests.by_rule.contains_key(rule) {
            bail!("{LIST}: a test shows {rule}: take the line out");
        }
    }
    Ok(())
}

fn render(rules: &[Rule], tests: &Tests, list: &[(String, Verdict)]) -> String {
    let mut sections: Vec<(&str, Vec<&Rule>)> = Vec::new();
    for rule in rules {
        match sections.last_mut() {
            Some((section, of_it)) if *section == rule.section => of_it.push(rule),
            _ => sections.push((&rule.section, vec![rule])),
        }
    }
    let mut summary = String::new();
    let mut body = String::new();
    let mut totals = [0; 3];
    for (section, of_it) in &sections {
        let mut counts = [0; 3];
        let _ = write!(
            body,
            "\n## {section}\n\n| Rule | | State | Shown by, or why |\n|---|---|---|---|\n"
        );
        for rule in of_it {
            let (place, state, why) = match (tests.by_rule.get(&rule.id), verdict(&rule.id, list)) {
                (Some(shown), _) => (0, "done", names(shown)),
                (None, Some(Verdict::Done(test))) => {
                    let file = tests.files.get(test).cloned().unwrap_or_default();
                    (0, "done", names(&BTreeSet::from([(file, test.clone())])))
                }
                (None, Some(Verdict::WillNot(why))) => (2, "will not", why.clone()),
                (None, Some(Verdict::NotYet(why))) => (1, "not yet", why.clone()),
                (None, None) => (1, "not yet", String::new()),
            };
            counts[place] += 1;
            totals[place] += 1;
            let text = rule.text.replace('|', "\\|");
            let _ = writeln!(body, "| {} | {text} | {state} | {why} |", rule.id);
        }
        let _ = writeln!(
            summary,
            "| {section} | {} | {} | {} |",
            counts[0], counts[1], counts[2]
        );
    }
    let _ = writeln!(
        summary,
        "| **all** | **{}** | **{}** | **{}** |",
        totals[0], totals[1], totals[2]
    );
    format!(
        "# Conformance\n\n{NOTICE}\n\n\
         Where each rule of `docs/spec/linux-process.md` and `docs/spec/win32-process.md` stands. *Done* means \
         that a test shows the rule, by its name or by a line of `docs/conformance.list`; a test shows a rule as far as its name says, which may \
         be less than every clause of it.\n\n\
         | Section | done | not yet | will not |\n|---|---|---|---|\n{summary}{body}"
    )
}

/// The tests of one rule, grouped by file.
fn names(tests: &BTreeSet<(String, String)>) -> String {
    let mut text = String::new();
    let mut last = "";
    for (file, name) in tests {
        if file != last {
            let gap = if last.is_empty() { "" } else { "; " };
            let _ = write!(text, "{gap}`{file}`: ");
            last = file;
        } else {
            text.push_str(", ");
        }
        let _ = write!(text, "`{name}`");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tests_name_tells_its_rule() {
        let id = |name| id_in(name);
        assert_eq!(id("lx_clone_43_x").as_deref(), Some("LX-CLONE-43"));
        assert_eq!(id("lx_clone3_07_x").as_deref(), Some("LX-CLONE3-07"));
        assert_eq!(id("w32_hnd_30_x").as_deref(), Some("W32-HND-30"));
        assert_eq!(id("lx_clone_flags_are_flags"), None);
        assert_eq!(id("a_reply_works_once"), None);
    }

    #[test]
    fn the_most_exact_line_of_the_list_counts() {
        let list =
            verdicts("# comment\nLX-NS-*: not yet: no namespaces\nLX-NS-05: will not: no: never\n")
                .unwrap();
        let never = Verdict::WillNot("no: never".into());
        assert_eq!(verdict("LX-NS-05", &list), Some(&never));
        let later = Verdict::NotYet("no namespaces".into());
        assert_eq!(verdict("LX-NS-01", &list), Some(&later));
        assert_eq!(verdict("LX-SIG-01", &list), None);
        assert!(verdicts("LX-NS-05 never").is_err());
        assert!(verdicts("LX-NS-05: perhaps: x").is_err());
    }

    #[test]
    fn rules_come_from_the_tables_with_their_sections() {
        let text =
            "## 1. Names\n\n| ID | rule |\n|---|---|\n| LX-NAME-01 | all `reach` one | x |\n";
        let rules = rules_of(text);
        assert_eq!(rules.len(), 1);
        assert_eq!(rules[0].section, "1. Names");
        assert_eq!(rules[0].text, "all reach one");
    }

    #[test]
    fn a_list_that_contradicts_the_tests_is_refused() {
        let rules = rules_of("## S\n| LX-NAME-01 | a | b |\n");
        let mut tests = Tests::default();
        collect_tests("f.rs", "    fn lx_name_01_all() {", &mut tests);
        assert!(check_names(&rules, &tests, &[]).is_ok());
        let list = verdicts("LX-NAME-01: not yet: why").unwrap();
        assert!(check_names(&rules, &tests, &list).is_err());
        let list = verdicts("LX-OTHER-*: not yet: why").unwrap();
        assert!(check_names(&rules, &tests, &list).is_err());
        let list = verdicts("LX-NAME-*: done: nobody").unwrap();
        assert!(check_names(&rules, &tests, &list).is_err());
    }
}
