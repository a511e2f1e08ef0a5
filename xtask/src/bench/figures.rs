//! The figures of both systems side by side, as they are written to JSON and read back.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use super::cases::{self, Budget, CASES};
use super::output::Run;

/// Everything that the tables and the plot are made of.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    /// QEMU's flags.
    pub flags: String,
    /// The compiler of Mitosis, one line.
    pub compiler: String,
    /// The package of Linux's kernel; empty if Linux was not measured.
    pub linux: String,
    /// The cases that at least one system has.
    pub cases: Vec<Row>,
    /// The same in nanoseconds of the host, without counting instructions, if that was measured.
    pub wall: Option<Box<Figures>>,
}

/// One case.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// Instructions for each operation.
    pub mitosis: Option<f64>,
    /// The same on Linux.
    pub linux: Option<f64>,
    /// Why Mitosis has no figure.
    pub note: Option<String>,
    /// How many instructions of kinds that are counted apart, for each operation on Mitosis.
    pub mitosis_kinds: BTreeMap<String, f64>,
    /// The same on Linux.
    pub linux_kinds: BTreeMap<String, f64>,
}

/// The plugin's name of ways out of the kernel, and what the JSON calls them: each entry has one.
const ENTRIES: (&str, &str) = ("kernel_exits", "kernel_entries");

impl Figures {
    /// Puts the results of both systems side by side.
    pub fn new(mitosis: &Run, linux: Option<&Run>) -> Figures {
        let mut names: Vec<&str> = CASES.iter().map(|case| case.name).collect();
        for measurement in &mitosis.measurements {
            if cases::find(&measurement.name).is_none() {
                names.push(&measurement.name);
            }
        }
        let cases = names
            .into_iter()
            .filter_map(|name| {
                let ours = mitosis.find(name);
                let note = mitosis.missing.iter().find(|(missing, _)| missing == name);
                let linux_name = cases::find(name).map_or(name, |case| case.linux_name());
                let theirs = linux.and_then(|run| run.find(linux_name));
                // A case that was not asked for has neither a figure nor a reason.
                (ours.is_some() || note.is_some()).then(|| Row {
                    name: name.to_owned(),
                    mitosis: ours.map(|measurement| measurement.ticks),
                    linux: theirs.map(|measurement| measurement.ticks),
                    note: note.map(|(_, why)| why.clone()),
                    mitosis_kinds: ours.map_or_else(BTreeMap::new, |m| renamed(&m.kinds)),
                    linux_kinds: theirs.map_or_else(BTreeMap::new, |m| renamed(&m.kinds)),
                })
            })
            .collect();
        Figures {
            cases,
            ..Figures::default()
        }
    }

    /// The row of a case.
    pub fn find(&self, name: &str) -> Option<&Row> {
        self.cases.iter().find(|row| row.name == name)
    }

    /// The most instructions that a case should take, in figures.
    pub fn budget(&self, name: &str) -> Option<f64> {
        match cases::find(name)?.budget? {
            Budget::Instructions(instructions) => Some(instructions as f64),
            Budget::PercentOf(percent, other) => {
                Some(self.find(other)?.mitosis? * percent as f64 / 100.0)
            }
        }
    }

    /// As JSON.
    pub fn to_json(&self) -> Value {
        let cases: Vec<Value> = self.cases.iter().map(|row| self.row_to_json(row)).collect();
        let mut value = json!({
            "flags": self.flags,
            "compiler": self.compiler,
            "linux_kernel": self.linux,
            "cases": cases,
        });
        if let Some(wall) = &self.wall {
            let row =
                |row: &Row| json!({"name": row.name, "mitosis": row.mitosis, "linux": row.linux});
            let cases: Vec<Value> = wall.cases.iter().map(row).collect();
            value["wall_ns"] = json!({"flags": wall.flags, "cases": cases});
        }
        value
    }

    fn row_to_json(&self, row: &Row) -> Value {
        let mut map = Map::new();
        map.insert("name".into(), json!(row.name));
        map.insert("mitosis".into(), json!(row.mitosis));
        map.insert("linux".into(), json!(row.linux));
        map.insert("budget".into(), json!(self.budget(&row.name)));
        if let Some(note) = &row.note {
            map.insert("note".into(), json!(note));
        }
        for (kind, count) in &row.mitosis_kinds {
            map.insert(kind.clone(), json!(count));
        }
        for (kind, count) in &row.linux_kinds {
            map.insert(format!("linux_{kind}"), json!(count));
        }
        Value::Object(map)
    }

    /// From JSON.
    pub fn from_json(value: &Value) -> Result<Figures> {
        let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
        let cases = value["cases"].as_array().context("no list of cases")?;
        let wall = match &value["wall_ns"] {
            Value::Null => None,
            wall => Some(Box::new(Figures::from_json(wall)?)),
        };
        Ok(Figures {
            wall,
            flags: text("flags"),
            compiler: text("compiler"),
            linux: text("linux_kernel"),
            cases: cases.iter().map(row_from_json).collect::<Result<_>>()?,
        })
    }
}

fn row_from_json(value: &Value) -> Result<Row> {
    let mut row = Row {
        name: value["name"]
            .as_str()
            .context("a case without a name")?
            .to_owned(),
        mitosis: value["mitosis"].as_f64(),
        linux: value["linux"].as_f64(),
        note: value["note"].as_str().map(str::to_owned),
        ..Row::default()
    };
    for (key, number) in value.as_object().into_iter().flatten() {
        let Some(number) = number.as_f64() else {
            continue;
        };
        if matches!(key.as_str(), "mitosis" | "linux" | "budget") {
        } else if let Some(kind) = key.strip_prefix("linux_") {
            row.linux_kinds.insert(kind.to_owned(), number);
        } else {
            row.mitosis_kinds.insert(key.clone(), number);
        }
    }
    Ok(row)
}

fn renamed(kinds: &BTreeMap<String, f64>) -> BTreeMap<String, f64> {
    kinds
        .iter()
        .map(|(name, count)| {
            let name = if name == ENTRIES.0 { ENTRIES.1 } else { name };
            // More digits say nothing, and make every run a change of the file.
            (name.to_owned(), (count * 100.0).round() / 100.0)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_survive_json() {
        let mut mitosis = Run::new(
            "fork_exit 10 9000 9001.5\nipc_rtt_0 10 400 400\nfork_mem_1m 1 10000 10000\n\
             fork_mem_256m 1 11000 11000\n# signal_self n/a: no signals\n",
            &[],
        );
        mitosis.measurements[0]
            .kinds
            .insert("kernel_exits".into(), 9.004);
        let linux = Run::new("fork_exit 10 98000 98000\npipe_rtt 1 12000 12000\n", &[]);
        let figures = Figures {
            flags: "-icount".into(),
            compiler: "rustc".into(),
            linux: "linux-image".into(),
            wall: Some(Box::new(Figures {
                flags: "-accel tcg".into(),
                cases: vec![Row {
                    name: "fork_exit".into(),
                    mitosis: Some(31_000.0),
                    linux: Some(290_000.0),
                    ..Row::default()
                }],
                ..Figures::default()
            })),
            ..Figures::new(&mitosis, Some(&linux))
        };
        assert_eq!(figures.cases.len(), 5);
        assert_eq!(
            figures.find("fork_exit").unwrap().mitosis_kinds["kernel_entries"],
            9.0
        );
        assert_eq!(figures.find("ipc_rtt_0").unwrap().linux, Some(12000.0));
        assert_eq!(figures.budget("fork_mem_256m"), Some(12000.0));
        let value = figures.to_json();
        assert_eq!(value["cases"][1]["mitosis"], json!(9001.5));
        assert_eq!(Figures::from_json(&value).unwrap(), figures);
    }
}
