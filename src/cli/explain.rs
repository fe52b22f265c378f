//! `explain` and `schema`: the model's own doc comments and types, as text and as JSON Schema. Both are made by `manifest`.

use clap::Args;

use super::failure::{Exit, Failure};
use super::output::{self, print};
use crate::manifest::schema;
use crate::model::kind::{API_VERSION, KINDS};

#[derive(Args)]
pub(crate) struct ExplainArgs {
    /// KIND, KIND.field.field (Server.spec.nics.port), or the code of a fault (port-wired-twice)
    #[arg(value_name = "KIND[.field…]|CODE")]
    path: String,
}

#[derive(Args)]
pub(crate) struct SchemaArgs {}

pub(crate) fn run(args: ExplainArgs) -> Result<(), Failure> {
    let page = schema::explain(&args.path).map_err(|unknown| Failure::new(Exit::NotFound, unknown.to_string()))?;
    Ok(print(&page)?)
}

pub(crate) fn schema(_: SchemaArgs) -> Result<(), Failure> {
    Ok(print(&output::json(&schema::json_schema()))?)
}

pub(crate) fn kinds() -> Result<(), Failure> {
    let row = |kind: &crate::model::Kind| [kind.plural(), kind.short(), API_VERSION, kind.singular()].map(str::to_owned).to_vec();
    let rows: Vec<Vec<String>> = KINDS.iter().map(row).collect();
    Ok(print(&output::table(&["NAME", "SHORT", "API-VERSION", "KIND"], &rows))?)
}
