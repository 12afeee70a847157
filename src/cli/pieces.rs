//! Pieces of streams, in the order in which they are to be labelled. How each kind of file is cut into them is in
//! [`super::readers`]; how they are labelled in [`super::lanes`].

use super::guess::{self, FileFormat};
use super::readers;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use strand::data::{DataError, Source};
use strand::encode::{InputError, InputFormat};
use strand::model::Model;

/// The least that a piece counts in what is in flight: its own upkeep.
const MIN_WEIGHT: usize = 128;

/// What a piece brings.
#[derive(Debug)]
pub enum Payload {
    Bytes(InputFormat, Vec<u8>),
    Tokens(Vec<String>),
    /// Of a stream of this class.
    OfClass(String, Box<Payload>),
    /// Nothing: the stream only ends.
    Nothing,
}

/// Where a piece was read, for messages.
#[derive(Debug, Clone)]
pub struct Place {
    pub file: Arc<str>,
    pub at: At,
}

#[derive(Debug, Clone, Copy)]
pub enum At {
    Line(u64),
    /// Offset of the piece's first byte.
    Byte(u64),
}

impl Place {
    /// The error with file and line (or byte).
    pub fn error(&self, error: InputError) -> anyhow::Error {
        let file = &self.file;
        match (self.at, error) {
            (At::Byte(offset), InputError::InvalidUtf8 { at }) => {
                anyhow::anyhow!("{file}, byte {}: the text is not valid UTF-8 there", offset + at as u64 + 1)
            }
            (At::Byte(offset), InputError::InvalidBase { at, found }) => {
                anyhow::anyhow!("{file}, byte {}: {found:?} is no IUPAC base code", offset + at as u64 + 1)
            }
            (At::Byte(offset), error) => anyhow::anyhow!("{file}, after byte {offset}: {error}"),
            (At::Line(line), error) => anyhow::anyhow!("{file}, line {line}: {error}"),
        }
    }
}

/// A stream of this run.
#[derive(Debug, Clone)]
pub struct Stream {
    /// Its number among all streams of the run, in the order of their first pieces.
    pub number: u64,
    pub name: Arc<str>,
    /// The name tells the reader of coloured text something.
    pub shown: bool,
}

/// A piece of a stream.
#[derive(Debug)]
pub struct Piece {
    pub stream: Stream,
    pub place: Place,
    pub payload: Payload,
    /// The stream is over after this piece.
    pub ends: bool,
}

impl Piece {
    /// What the piece counts in what is in flight: its bytes; four times as much for bases, whose labels take more.
    pub fn weight(&self) -> usize {
        MIN_WEIGHT + self.payload.weight()
    }
}

impl Payload {
    fn weight(&self) -> usize {
        match self {
            Payload::Bytes(InputFormat::Dna, bases) => 4 * bases.len(),
            Payload::Bytes(_, bytes) => bytes.len(),
            Payload::Tokens(tokens) => tokens.iter().map(|token| token.len() + 24).sum(),
            Payload::OfClass(_, payload) => payload.weight(),
            Payload::Nothing => 0,
        }
    }
}

/// How files are cut into streams.
#[derive(Debug, Clone)]
pub struct Reading {
    /// Absent: guessed for each file.
    pub format: Option<FileFormat>,
    /// Each line of text or tokens is a stream of its own.
    pub lines: bool,
}

/// Numbers streams as they are met.
#[derive(Debug, Default)]
pub struct Streams(u64);

impl Streams {
    pub fn open(&mut self, name: &str) -> Stream {
        self.0 += 1;
        Stream { number: self.0, name: name.into(), shown: false }
    }

    /// Opens a stream whose name is shown in coloured text.
    pub fn open_shown(&mut self, name: &str) -> Stream {
        Stream { shown: true, ..self.open(name) }
    }
}

/// One file, read piece by piece.
pub trait PieceReader: Send {
    /// The next piece, or nothing at the end of the file. Waits for input if it has to, but not for more than there is.
    fn next(&mut self, streams: &mut Streams) -> Result<Option<Piece>, DataError>;
}

/// The pieces of all files, one file after the other. Standard input (`-`) is read as it comes.
pub fn pieces(
    files: Vec<PathBuf>,
    reading: Reading,
    model: Arc<Model>,
) -> impl Iterator<Item = anyhow::Result<Piece>> + Send + 'static {
    let mut files = files.into_iter();
    let mut current: Option<Box<dyn PieceReader>> = None;
    let mut streams = Streams::default();
    let mut failed = false;
    std::iter::from_fn(move || {
        while !failed {
            let result = match &mut current {
                Some(file) => file.next(&mut streams).map_err(anyhow::Error::from),
                None => match open(&files.next()?, &reading, &model) {
                    Ok(file) => {
                        current = Some(file);
                        continue;
                    }
                    Err(error) => Err(error),
                },
            };
            match result {
                Ok(Some(piece)) => return Some(Ok(piece)),
                Ok(None) => current = None,
                Err(error) => {
                    failed = true;
                    return Some(Err(error));
                }
            }
        }
        None
    })
}

fn open(path: &Path, reading: &Reading, model: &Model) -> anyhow::Result<Box<dyn PieceReader>> {
    let mut source = Source::open(path)?;
    let format = match reading.format.or_else(|| guess::by_name(path)) {
        Some(format) => format,
        None => guess::by_content(&mut source, model)?,
    };
    guess::check(format, model)?;
    let by_class = !model.spec().stream_classes().is_empty();
    Ok(readers::reader(source, format, reading.lines, model.encoder().format(), by_class))
}
