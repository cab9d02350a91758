//! What tasks carry and nobody here looks into: inputs, checkpoints, results, values of the small store.

use std::borrow::Cow;

use agentd_protocol::worker::Text;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rusqlite::types::{ToSql, ToSqlOutput};
use serde_json::value::RawValue;

use super::blob::{BlobError, BlobName, Blobs, INLINE_MAX};

/// How a payload came and is given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// JSON as it was written.
    Json,
    /// Bytes, in base64 on the wire.
    Bytes,
}

/// Added to a form's number where the value is the name of a blob.
const IN_BLOB: i64 = 2;

/// A payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Payload<'a> {
    pub(super) form: Form,
    pub(super) bytes: Cow<'a, [u8]>,
}

/// A payload as the database keeps it: itself, or the name of a blob.
#[derive(Debug)]
pub(super) struct Kept<'a> {
    pub(super) form: i64,
    value: Cow<'a, [u8]>,
}

impl<'a> Payload<'a> {
    /// JSON as it came.
    pub(super) fn json(raw: &'a RawValue) -> Self {
        Self { form: Form::Json, bytes: Cow::Borrowed(raw.get().as_bytes()) }
    }

    /// The one of two fields that is there.
    ///
    /// # Errors
    /// What is wrong with the fields, in words.
    pub(super) fn of_fields(data: Option<&'a Text<'_>>, json: Option<&'a RawValue>) -> Result<Self, String> {
        match (data, json) {
            (Some(data), None) => {
                let bytes = STANDARD.decode(data.as_bytes()).map_err(|error| format!("data is no base64: {error}"))?;
                Ok(Self { form: Form::Bytes, bytes: Cow::Owned(bytes) })
            }
            (None, Some(json)) => Ok(Self::json(json)),
            (None, None) => Err("data or json is needed".to_owned()),
            (Some(_), Some(_)) => Err("data and json are both there: one is enough".to_owned()),
        }
    }

    /// As it is put on the wire: `data`, `json`.
    pub(super) fn fields(&self) -> (Option<Text<'static>>, Option<&RawValue>) {
        match self.form {
            Form::Bytes => (Some(STANDARD.encode(&self.bytes).into()), None),
            // It was JSON when it came.
            Form::Json => (None, serde_json::from_slice(&self.bytes).ok()),
        }
    }

    /// As the database keeps it; what is long goes to a blob first.
    ///
    /// # Errors
    /// The blob could not be kept.
    pub(super) fn keep(&self, blobs: &Blobs) -> Result<Kept<'_>, BlobError> {
        let form = match self.form {
            Form::Json => 0,
            Form::Bytes => 1,
        };
        if self.bytes.len() <= INLINE_MAX {
            return Ok(Kept { form, value: Cow::Borrowed(&self.bytes) });
        }
        let name = blobs.keep(&self.bytes)?;
        Ok(Kept { form: form + IN_BLOB, value: Cow::Owned(name.as_str().as_bytes().to_vec()) })
    }

    /// What the database kept.
    ///
    /// # Errors
    /// The blob cannot be read.
    pub(super) fn of_kept(form: i64, value: Vec<u8>, blobs: &Blobs) -> Result<Payload<'static>, BlobError> {
        let bytes = match blob_name(form, &value) {
            Some(name) => blobs.read(&name)?,
            None => value,
        };
        let form = if form % IN_BLOB == 0 { Form::Json } else { Form::Bytes };
        Ok(Payload { form, bytes: Cow::Owned(bytes) })
    }
}

/// The blob that a kept payload names; none when it is there itself.
pub(super) fn blob_name(form: i64, value: &[u8]) -> Option<BlobName> {
    (form >= IN_BLOB).then(|| std::str::from_utf8(value).ok().and_then(BlobName::parse)).flatten()
}

impl ToSql for Kept<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::from(&*self.value))
    }
}
