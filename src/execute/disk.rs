//! Local files as an object store, whatever their names: object_store's own has no place for names with control
//! characters, or that are not UTF-8.
//!
//! The location of a file is its absolute path, in which `%` stands before the two hexadecimal digits of each byte that
//! an [`ObjectPath`] can't have, and of `%` itself.

use std::ffi::OsString;
use std::fmt;
use std::fs::{File, Metadata};
use std::io;
use std::ops::Range;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path as ObjectPath;
use object_store::{
    Attributes, CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

/// What an [`ObjectPath`] can't have in a name, and what stands for it.
const NOT_IN_NAMES: &AsciiSet = &CONTROLS.add(b'%').add(b'/');

/// Reads local files; it is never asked to list or write any.
#[derive(Debug)]
pub struct Disk;

/// The location of a file with this absolute path.
///
/// # Errors
/// Never for absolute paths.
pub fn location_of(path: &Path) -> std::result::Result<ObjectPath, object_store::path::Error> {
    let names = path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(encoded(name.as_bytes())),
        Component::ParentDir => Some("%2E%2E".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    });
    ObjectPath::parse(names.collect::<Vec<_>>().join("/"))
}

/// The path of the file at this location.
pub fn path_of(location: &ObjectPath) -> PathBuf {
    let bytes: Vec<u8> = percent_decode_str(location.as_ref()).collect();
    Path::new("/").join(OsString::from_vec(bytes))
}

fn encoded(name: &[u8]) -> String {
    let mut text = String::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        text.extend(utf8_percent_encode(chunk.valid(), NOT_IN_NAMES));
        chunk.invalid().iter().for_each(|byte| text.push_str(&format!("%{byte:02X}")));
    }
    text
}

/// What the store says of a file. Its time is that of the last change of any kind, as in [`crate::source`]'s stamps:
/// programs can set the time of modification back, and what is cached of a file goes by this one.
///
/// # Errors
/// When it is not there any more.
pub fn object_meta(location: ObjectPath, metadata: &Metadata) -> io::Result<ObjectMeta> {
    let seconds = u64::try_from(metadata.ctime()).unwrap_or_default();
    let nanoseconds = u32::try_from(metadata.ctime_nsec()).unwrap_or_default();
    let last_modified = (UNIX_EPOCH + Duration::new(seconds, nanoseconds)).into();
    Ok(ObjectMeta { location, last_modified, size: metadata.len(), e_tag: None, version: None })
}

fn failed(location: &ObjectPath, source: io::Error) -> Error {
    let path = path_of(location).display().to_string();
    match source.kind() {
        io::ErrorKind::NotFound => Error::NotFound { path, source: source.into() },
        _ => Error::Generic { store: "local files", source: format!("{path}: {source}").into() },
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|source| Error::JoinError { source })?
}

fn read(file: &File, location: &ObjectPath, range: &Range<u64>) -> Result<Bytes> {
    let mut bytes = vec![0; usize::try_from(range.end.saturating_sub(range.start)).unwrap_or_default()];
    file.read_exact_at(&mut bytes, range.start).map_err(|e| failed(location, e))?;
    Ok(bytes.into())
}

#[async_trait]
impl ObjectStore for Disk {
    async fn get_opts(&self, location: &ObjectPath, options: GetOptions) -> Result<GetResult> {
        let location = location.clone();
        blocking(move || {
            let path = path_of(&location);
            let file = File::open(&path).map_err(|e| failed(&location, e))?;
            let metadata = file.metadata().map_err(|e| failed(&location, e))?;
            let meta = object_meta(location.clone(), &metadata).map_err(|e| failed(&location, e))?;
            options.check_preconditions(&meta)?;
            let range = match &options.range {
                Some(range) => range
                    .as_range(meta.size)
                    .map_err(|e| Error::Generic { store: "local files", source: Box::new(e) })?,
                None => 0..meta.size,
            };
            let payload = GetResultPayload::File(file, path);
            Ok(GetResult { payload, meta, range, attributes: Attributes::default() })
        })
        .await
    }

    async fn get_ranges(&self, location: &ObjectPath, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let (location, ranges) = (location.clone(), ranges.to_vec());
        blocking(move || {
            let file = File::open(path_of(&location)).map_err(|e| failed(&location, e))?;
            ranges.iter().map(|range| read(&file, &location, range)).collect()
        })
        .await
    }

    async fn put_opts(&self, _: &ObjectPath, _: PutPayload, _: PutOptions) -> Result<PutResult> {
        Err(Error::NotImplemented { operation: "writing".into(), implementer: self.to_string() })
    }

    async fn put_multipart_opts(&self, _: &ObjectPath, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(Error::NotImplemented { operation: "writing".into(), implementer: self.to_string() })
    }

    fn delete_stream(&self, _: BoxStream<'static, Result<ObjectPath>>) -> BoxStream<'static, Result<ObjectPath>> {
        let error = Error::NotImplemented { operation: "deleting".into(), implementer: self.to_string() };
        futures::stream::iter([Err(error)]).boxed()
    }

    fn list(&self, _: Option<&ObjectPath>) -> BoxStream<'static, Result<ObjectMeta>> {
        let error = Error::NotImplemented { operation: "listing".into(), implementer: self.to_string() };
        futures::stream::iter([Err(error)]).boxed()
    }

    async fn list_with_delimiter(&self, _: Option<&ObjectPath>) -> Result<ListResult> {
        Err(Error::NotImplemented { operation: "listing".into(), implementer: self.to_string() })
    }

    async fn copy_opts(&self, _: &ObjectPath, _: &ObjectPath, _: CopyOptions) -> Result<()> {
        Err(Error::NotImplemented { operation: "copying".into(), implementer: self.to_string() })
    }
}

impl fmt::Display for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("local files")
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::path::Path;

    use object_store::{ObjectStore, ObjectStoreExt};

    use crate::execute::disk::{Disk, location_of, path_of};

    #[test]
    fn every_absolute_path_has_a_location() {
        let paths: [&[u8]; 9] = [
            b"/a/b.parquet",
            "/données/日本 x.parquet".as_bytes(),
            b"/100%/a%20b",
            b"/tab\tx/new\nline",
            b"/br[1]/a#b?c*d",
            b"/not utf8 \xff\xfe/x",
            b"/w/../x",
            b"/back\\slash",
            b"/..../x",
        ];
        for path in paths {
            let path = Path::new(OsStr::from_bytes(path));
            let location = location_of(path).unwrap();
            assert_eq!(path_of(&location), path, "{location}");
        }
    }

    #[tokio::test]
    async fn files_are_read_by_their_locations() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tab\tx");
        std::fs::write(&path, b"0123456789").unwrap();
        let location = location_of(&path).unwrap();
        assert_eq!(Disk.head(&location).await.unwrap().size, 10);
        assert_eq!(Disk.get(&location).await.unwrap().bytes().await.unwrap().as_ref(), b"0123456789");
        assert_eq!(Disk.get_range(&location, 2..4).await.unwrap().as_ref(), b"23");
        let ranges = Disk.get_ranges(&location, &[8..10, 0..1]).await.unwrap();
        assert_eq!(ranges, ["89", "0"]);
        let missing = location_of(&folder.path().join("none")).unwrap();
        assert!(matches!(Disk.head(&missing).await, Err(object_store::Error::NotFound { .. })));
    }
}
