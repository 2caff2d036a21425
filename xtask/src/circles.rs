//! Finds import circles: files of one crate that import each other, directly or through others.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, anyhow, bail};
use proc_macro2::{Spacing, TokenStream, TokenTree};

/// Maps module paths (`bench/peers`; empty for the root) to the text of their files.
type Files = BTreeMap<String, String>;

#[cfg(test)]
mod tests;

/// Fails if a crate of the workspace has a circle.
pub(crate) fn check() -> Result<()> {
    let arguments = ["ls-files", "--cached", "--others", "--exclude-standard", "*/src/*.rs"];
    let list = String::from_utf8(crate::run::command("git").args(arguments).output()?.stdout)?;
    let mut crates = BTreeMap::<&str, Files>::new();
    let shipped = |path: &&str| !path.contains("tests.rs") && !path.contains("/tests/");
    for path in list.lines().filter(shipped) {
        let (name, file) = path.split_once("/src/").unwrap_or_default();
        let module = file.trim_end_matches(".rs").trim_end_matches("/mod");
        let module = if matches!(module, "lib" | "main") { "" } else { module };
        // Git lists a file that was removed until that is committed.
        if let Ok(text) = std::fs::read_to_string(crate::run::workspace().join(path)) {
            crates.entry(name).or_default().insert(module.to_owned(), text);
        }
    }
    for (name, files) in &crates {
        if let Some(circle) = circle(files)? {
            bail!("import circle in {name}: {}; move what is shared lower", circle.join(" -> "));
        }
    }
    Ok(())
}

/// Returns files of which each imports the next, and the last is the first; or `None`.
fn circle(files: &Files) -> Result<Option<Vec<&str>>> {
    let mut imports = BTreeMap::new();
    for (file, text) in files {
        let parts = file.split('/').filter(|part| !part.is_empty());
        let scope: Vec<_> = parts.map(str::to_owned).collect();
        let (tokens, mut paths) = (text.parse().map_err(|e| anyhow!("{file}: {e}"))?, Vec::new());
        collect(tokens, &scope, false, &mut paths);
        // This is the longest part of a path that is a file; the rest is inside that file.
        let imported = paths.iter().filter_map(|path| {
            let parts = (0..=path.len()).rev().filter_map(|len| path.get(..len));
            parts.map(|part| part.join("/")).find_map(|part| files.get_key_value(&part))
        });
        let names = imported.map(|(name, _)| name.as_str()).filter(|name| name != file);
        imports.insert(file.as_str(), names.collect::<BTreeSet<_>>());
    }
    // A file that imports no file is part of no circle; without such files, every way ends in one.
    while let Some(end) = imports.iter().find(|(_, next)| next.is_empty()).map(|(file, _)| *file) {
        imports.remove(end);
        imports.values_mut().for_each(|next| next.retain(|file| *file != end));
    }
    let mut way: Vec<&str> = imports.keys().next().copied().into_iter().collect();
    while let Some(next) = way.last().and_then(|file| imports.get(file)?.first()) {
        let known = way.iter().position(|file| file == next);
        way.push(next);
        if let Some(begin) = known {
            return Ok(Some(way.split_off(begin)));
        }
    }
    Ok(None)
}

/// Collects all paths, each from the crate's root on, as if what they begin with were a module of
/// `scope`, and all names of a `use` tree. Leaves out what is for tests.
fn collect(tokens: TokenStream, scope: &[String], tree: bool, paths: &mut Vec<Vec<String>>) {
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        match (&token, tokens.peek()) {
            (TokenTree::Punct(mark), Some(group))
                if mark.as_char() == '#' && group.to_string().replace(' ', "") == "[cfg(test)]" =>
            {
                tokens.find(|token| token.to_string() == ";" || token.to_string().starts_with('{'));
            }
            // `pub(super)` imports nothing, and `as` gives a name.
            (TokenTree::Ident(word), Some(TokenTree::Group(_))) if word == "pub" => {
                drop(tokens.next())
            }
            (TokenTree::Ident(word), _) if tree && word == "as" => drop(tokens.next()),
            (TokenTree::Ident(word), Some(TokenTree::Ident(name))) if word == "mod" => {
                let inside = [scope, &[name.to_string()]].concat();
                if let (_, Some(TokenTree::Group(body))) = (tokens.next(), tokens.next()) {
                    collect(body.stream(), &inside, false, paths);
                }
            }
            (TokenTree::Ident(_), next) if tree || next.is_some_and(joins) => {
                let (mut path, mut part) = (scope.to_vec(), Some(token));
                while let Some(TokenTree::Ident(name)) = &part {
                    match name.to_string().as_str() {
                        "crate" => path.clear(),
                        "super" => drop(path.pop()),
                        "self" => {}
                        name => path.push(name.to_owned()),
                    }
                    let colons = tokens.next_if(joins).and_then(|_| tokens.next());
                    part = colons.and_then(|_| tokens.next());
                }
                if let Some(TokenTree::Group(group)) = part {
                    collect(group.stream(), &path, true, paths);
                }
                paths.push(path);
            }
            (TokenTree::Group(group), _) => collect(group.stream(), scope, tree, paths),
            _ => {}
        }
    }
}

/// Returns true for the first colon of `::`.
fn joins(token: &TokenTree) -> bool {
    matches!(token, TokenTree::Punct(colon) if colon.as_char() == ':' && colon.spacing() == Spacing::Joint)
}
