//! Parameters of a request, from its query, form or JSON body, nested as Rails nests them: `variables[KEY]=value`,
//! `scope[]=failed`.

use serde_json::{Map, Value};
use url::form_urlencoded;

/// All parameters of one request; the body wins over the query.
#[derive(Clone, Debug, Default)]
pub(crate) struct Params(Map<String, Value>);

impl Params {
    /// Reads a request.
    ///
    /// # Errors
    /// When the body is not what its content type says.
    pub(crate) fn read(query: Option<&str>, content_type: &str, body: &[u8]) -> Result<Params, String> {
        let mut params = Params::default();
        params.add_pairs(query.unwrap_or_default().as_bytes());
        if content_type.starts_with("application/json") {
            if !body.is_empty() {
                let parsed: Value =
                    serde_json::from_slice(body).map_err(|_| "problem parsing JSON".to_owned())?;
                let Value::Object(parsed) = parsed else {
                    return Err("problem parsing JSON".into());
                };
                params.0.extend(parsed);
            }
        } else if content_type.starts_with("application/x-www-form-urlencoded") || content_type.is_empty() {
            params.add_pairs(body);
        } else if let Some((_, boundary)) = content_type.split_once("boundary=") {
            params.add_multipart(boundary.trim_matches('"'), body);
        } else {
            return Err("The provided content-type is not supported.".into());
        }
        Ok(params)
    }

    fn add_pairs(&mut self, encoded: &[u8]) {
        for (key, value) in form_urlencoded::parse(encoded) {
            self.add(&key, value.into_owned());
        }
    }

    /// The text fields of a form sent as `multipart/form-data`, which is what `curl --form` sends.
    fn add_multipart(&mut self, boundary: &str, body: &[u8]) {
        let body = String::from_utf8_lossy(body);
        for part in body.split(&format!("--{boundary}")) {
            let Some((head, value)) = part.split_once("\r\n\r\n") else {
                continue;
            };
            let name = head
                .split_once("name=\"")
                .and_then(|(_, rest)| rest.split_once('"'));
            if let Some((name, _)) = name {
                self.add(name, value.trim_end_matches("\r\n").to_owned());
            }
        }
    }

    fn add(&mut self, key: &str, value: String) {
        let Some((base, rest)) = key.split_once('[') else {
            self.0.insert(key.to_owned(), Value::String(value));
            return;
        };
        let inner = rest.trim_end_matches(']');
        if inner.is_empty() {
            let list = self.0.entry(base).or_insert_with(|| Value::Array(Vec::new()));
            if let Some(list) = list.as_array_mut() {
                list.push(Value::String(value));
            }
        } else if let Some(("", field)) = inner.split_once("][") {
            // `variables[][key]=K&variables[][value]=V`: a field seen again starts the next object.
            let list = self.0.entry(base).or_insert_with(|| Value::Array(Vec::new()));
            let Some(list) = list.as_array_mut() else { return };
            let full = list.last().is_none_or(|last| last.get(field).is_some());
            if full {
                list.push(Value::Object(Map::new()));
            }
            if let Some(last) = list.last_mut().and_then(Value::as_object_mut) {
                last.insert(field.to_owned(), Value::String(value));
            }
        } else {
            let map = self.0.entry(base).or_insert_with(|| Value::Object(Map::new()));
            if let Some(map) = map.as_object_mut() {
                map.insert(inner.to_owned(), Value::String(value));
            }
        }
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    /// A text, or the text of a number or boolean.
    pub(crate) fn text(&self, key: &str) -> Option<String> {
        match self.get(key)? {
            Value::String(text) => Some(text.clone()),
            other @ (Value::Number(_) | Value::Bool(_)) => Some(other.to_string()),
            _ => None,
        }
    }

    pub(crate) fn number(&self, key: &str) -> Option<u64> {
        self.text(key)?.parse().ok()
    }

    /// A boolean, by any of the words that GitLab's parameters take for one; Python's clients say `True`.
    pub(crate) fn flag(&self, key: &str) -> Option<bool> {
        match self.text(key)?.to_ascii_lowercase().as_str() {
            "true" | "t" | "yes" | "y" | "on" | "1" => Some(true),
            "false" | "f" | "no" | "n" | "off" | "0" => Some(false),
            _ => None,
        }
    }

    /// A list, or one value, or values apart by commas.
    pub(crate) fn list(&self, key: &str) -> Vec<String> {
        match self.get(key) {
            Some(Value::Array(values)) => values
                .iter()
                .filter_map(|value| value.as_str().map(str::to_owned))
                .collect(),
            Some(Value::String(text)) => text.split(',').map(|part| part.trim().to_owned()).collect(),
            _ => Vec::new(),
        }
    }

    /// Everything but the token, as JSON.
    pub(crate) fn without_token(&self) -> Value {
        let mut all = self.0.clone();
        all.shift_remove("token");
        Value::Object(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_nest_as_rails_nests_them() {
        let body = b"token=t&variables[A]=1&variables[B]=x%20y&scope[]=failed&scope[]=success&list[][key]=K&list[][value]=V&list[][key]=L";
        let params = Params::read(Some("ref=main"), "application/x-www-form-urlencoded", body).unwrap();
        assert_eq!(params.text("ref").as_deref(), Some("main"));
        assert_eq!(params.get("variables").unwrap()["B"], "x y");
        assert_eq!(params.list("scope"), ["failed", "success"]);
        assert_eq!(params.get("list").unwrap()[0]["value"], "V");
        assert_eq!(params.get("list").unwrap()[1]["key"], "L");
        assert!(params.without_token().get("token").is_none());
    }

    #[test]
    fn multipart_forms_are_read() {
        let body = b"--xx\r\nContent-Disposition: form-data; name=\"token\"\r\n\r\nabc\r\n--xx\r\nContent-Disposition: form-data; name=\"inputs[a]\"\r\n\r\n1\r\n--xx--\r\n";
        let params = Params::read(None, "multipart/form-data; boundary=xx", body).unwrap();
        assert_eq!(params.text("token").as_deref(), Some("abc"));
        assert_eq!(params.get("inputs").unwrap()["a"], "1");
    }

    #[test]
    fn a_json_body_must_be_an_object() {
        assert!(Params::read(None, "application/json", b"[]").is_err());
        assert!(Params::read(None, "application/json", b"{").is_err());
    }
}
