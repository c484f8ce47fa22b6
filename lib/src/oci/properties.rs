//! What must hold of the parsers whatever they are given. Property tests try it with texts that resemble the real ones,
//! the targets in `fuzz/` with whatever a fuzzer comes up with. It is in neither binary nor library otherwise.

use bytes::Bytes;

use super::{Descriptor, Digest, Manifest, Reference};
use crate::failure::Kind;
use crate::http::Url;

pub use super::credentials::properties::docker_config;
pub use super::registry::properties::challenge;

/// A text is a reference that shows as one, stays within bounds and makes no other URL than it says, or is refused
/// with a hint.
///
/// # Panics
/// When that does not hold.
pub fn reference(text: &str) {
    let reference = match text.parse::<Reference>() {
        Ok(reference) => reference,
        Err(failure) => {
            assert_eq!(failure.kind(), Kind::Usage, "{text:?}");
            assert!(failure.next_action().is_some(), "{text:?}");
            return;
        }
    };
    let shown = reference.to_string();
    match shown.parse::<Reference>() {
        Ok(again) => assert_eq!(again, reference, "{text:?}"),
        Err(failure) => panic!("{text:?} shows as {shown:?}, which is refused: {failure:?}"),
    }
    assert!(reference.name().len() <= 255, "{text:?}");
    assert!(
        reference.tag().is_none_or(|tag| tag.as_str().len() <= 128),
        "{text:?}"
    );
    // What becomes of it in a request: the host, and the path below it, and nothing else.
    let path = format!("/v2/{}/manifests/1", reference.repository());
    match Url::parse(&format!("https://{}{path}", reference.endpoint())) {
        Ok(url) => {
            assert_eq!(url.path(), path, "{text:?}");
            assert_eq!((url.query(), url.fragment()), (None, None), "{text:?}");
            assert_eq!((url.username(), url.password()), ("", None), "{text:?}");
            let host = url.host_str().unwrap_or_default();
            assert!(
                reference.endpoint().starts_with(host) || host.starts_with('['),
                "{text:?}: {host}"
            );
        }
        // Such names are written in an alphabet of their own, whose rules only the URL's parser knows.
        Err(error) => assert!(
            reference.registry().contains("xn--"),
            "{text:?} makes no URL: {error}"
        ),
    }
}

/// Bytes are a manifest whose parts are within bounds and that is read alike again, or malformed by name.
///
/// # Panics
/// When that does not hold.
pub fn manifest(bytes: &[u8]) {
    // The shortest descriptor has a digest and the names of its fields.
    const SHORTEST: usize = 71;
    let origin = "example.com/app:1";
    let read = || Manifest::read(Bytes::copy_from_slice(bytes), Digest::of(bytes), None, origin);
    let manifest = match read() {
        Ok(manifest) => manifest,
        Err(failure) => {
            assert_eq!(failure.kind(), Kind::Input, "{failure:?}");
            assert!(failure.message().contains(origin), "{failure:?}");
            return;
        }
    };
    assert_eq!(manifest.bytes(), bytes);
    assert_eq!(manifest.digest(), &Digest::of(bytes));
    assert!(!manifest.media_type().is_empty());
    let lists = |manifest: &Manifest| -> Vec<Descriptor> {
        let lists = [manifest.children(), manifest.blobs(), manifest.external()];
        lists
            .concat()
            .into_iter()
            .chain(manifest.subject().cloned())
            .collect()
    };
    let parts = lists(&manifest);
    assert!(parts.len() * SHORTEST <= bytes.len(), "{} parts", parts.len());
    for part in &parts {
        assert_eq!(
            part.digest.as_str().parse::<Digest>().ok().as_ref(),
            Some(&part.digest)
        );
    }
    match read() {
        Ok(again) => assert_eq!(lists(&again), parts),
        Err(failure) => panic!("refused the second time: {failure:?}"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    /// References, and what resembles them.
    fn reference_text() -> impl Strategy<Value = String> {
        let registry = prop_oneof![
            "[a-z0-9-]{1,10}(\\.[a-zA-Z0-9-]{1,8}){0,3}(:[0-9]{0,6})?",
            "(localhost|docker\\.io|index\\.docker\\.io|127\\.0\\.0\\.1|\\[::1\\]|\\[[0-9a-f:.]{0,12}\\]|0x7f\\.1|1\\.2\\.3)(:[1-9][0-9]{0,4})?",
        ];
        let path = "[a-z0-9]{1,8}([._-]{1,3}[a-z0-9]{1,4}){0,2}(/[a-z0-9._%A-Z-]{1,8}){0,3}";
        let pointer = "(:[a-zA-Z0-9_.-]{0,10})?(@(sha256:[0-9a-f]{63,65}|sha512:[0-9a-f]{128}|md5:0))?";
        let whole = (registry, path, pointer)
            .prop_map(|(registry, path, pointer)| format!("{registry}/{path}{pointer}"));
        prop_oneof![4 => whole, 1 => "\\PC{0,80}"]
    }

    /// Descriptors, and what resembles them.
    fn descriptor() -> impl Strategy<Value = Value> {
        let media_type = prop_oneof![
            Just("application/vnd.oci.image.manifest.v1+json".to_owned()),
            Just("application/vnd.oci.image.layer.v1.tar+gzip".to_owned()),
            Just("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip".to_owned()),
            "[a-z/+.]{0,20}",
        ];
        let digest = prop_oneof![4 => "sha256:[0-9a-f]{64}", 1 => "[a-z0-9:./]{0,72}"];
        let size = prop_oneof![3 => (0_i64..1 << 40).prop_map(Value::from), 1 => any::<i64>().prop_map(Value::from), 1 => Just(json!("7"))];
        let urls = proptest::option::of(proptest::collection::vec("https://[a-z.]{1,10}", 0..2));
        (media_type, digest, size, urls).prop_map(|(media_type, digest, size, urls)| {
            let mut descriptor = json!({"mediaType": media_type, "digest": digest, "size": size});
            if let Some(urls) = urls {
                descriptor["urls"] = urls.into();
            }
            descriptor
        })
    }

    fn document() -> impl Strategy<Value = Value> {
        let field = |name: &'static str| {
            proptest::option::weighted(0.5, proptest::collection::vec(descriptor(), 0..4))
                .prop_map(move |list| list.map(|list| (name.to_owned(), Value::from(list))))
        };
        let one = |name: &'static str| {
            proptest::option::weighted(0.5, descriptor())
                .prop_map(move |one| one.map(|one| (name.to_owned(), one)))
        };
        let version =
            proptest::option::of((0_u64..4).prop_map(|number| ("schemaVersion".to_owned(), number.into())));
        (
            field("layers"),
            field("manifests"),
            field("blobs"),
            one("config"),
            one("subject"),
            version,
        )
            .prop_map(|(layers, manifests, blobs, config, subject, version)| {
                [layers, manifests, blobs, config, subject, version]
                    .into_iter()
                    .flatten()
                    .collect::<serde_json::Map<_, _>>()
                    .into()
            })
    }

    proptest! {
        #[test]
        fn references(text in reference_text()) {
            reference(&text);
        }

        #[test]
        fn manifests(document in document()) {
            manifest(document.to_string().as_bytes());
        }

        #[test]
        fn manifests_that_are_cut_off(document in document(), at in 0_usize..2000) {
            let text = document.to_string();
            manifest(&text.as_bytes()[..at.min(text.len())]);
        }

        #[test]
        fn bytes_that_are_no_manifests(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            manifest(&bytes);
        }
    }
}
