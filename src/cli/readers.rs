//! How each kind of file is cut into streams and pieces.

use super::guess::FileFormat;
use super::pieces::{At, Payload, Piece, PieceReader, Place, Stream, Streams};
use std::collections::HashMap;
use std::sync::Arc;
use strand::data::{ConllReader, DataError, FastaReader, JsonRecord, JsonlReader, Lines, Source};
use strand::encode::InputFormat;

/// The most bytes of text, or bases, in one piece.
const PIECE_BYTES: usize = 16 * 1024;

/// A reader of `source`. `raw` is how the model takes running text; with `lines` each line is a stream; with `by_class` the
/// `label` of a JSON record is the class that its stream is of.
pub fn reader(
    source: Source,
    format: FileFormat,
    lines: bool,
    raw: InputFormat,
    by_class: bool,
) -> Box<dyn PieceReader> {
    let file: Arc<str> = source.name().into();
    match format {
        FileFormat::Text if lines => Box::new(LineStreams { file, lines: Lines::new(source), raw: Some(raw) }),
        FileFormat::Tokens if lines => Box::new(LineStreams { file, lines: Lines::new(source), raw: None }),
        FileFormat::Text => Box::new(Text { file, source, raw, offset: 0, stream: None, over: false }),
        FileFormat::Tokens => Box::new(TokenLines { file, lines: Lines::new(source), stream: None, over: false }),
        FileFormat::Conll => Box::new(Conll { file, reader: ConllReader::new(source), sentences: 0 }),
        FileFormat::Fasta => Box::new(Fasta { file, reader: FastaReader::new(source), stream: None }),
        FileFormat::Jsonl => {
            Box::new(Jsonl { file, reader: JsonlReader::new(source), open: HashMap::new(), closing: None, by_class })
        }
    }
}

fn at_line(file: &Arc<str>, line: u64) -> Place {
    Place { file: file.clone(), at: At::Line(line) }
}

/// Running text: the file is one stream.
struct Text {
    file: Arc<str>,
    source: Source,
    raw: InputFormat,
    offset: u64,
    stream: Option<Stream>,
    over: bool,
}

impl PieceReader for Text {
    fn next(&mut self, streams: &mut Streams) -> Result<Option<Piece>, DataError> {
        if self.over {
            return Ok(None);
        }
        let at_hand = self.source.available()?;
        let bytes = at_hand[..at_hand.len().min(PIECE_BYTES)].to_vec();
        self.source.consume(bytes.len());
        self.over = bytes.is_empty();
        let stream = self.stream.get_or_insert_with(|| streams.open(&self.file)).clone();
        let place = Place { file: self.file.clone(), at: At::Byte(self.offset) };
        self.offset += bytes.len() as u64;
        let payload = if self.over { Payload::Nothing } else { Payload::Bytes(self.raw, bytes) };
        Ok(Some(Piece { stream, place, payload, ends: self.over }))
    }
}

/// Tokens line by line: the file is one stream.
struct TokenLines {
    file: Arc<str>,
    lines: Lines,
    stream: Option<Stream>,
    over: bool,
}

impl PieceReader for TokenLines {
    fn next(&mut self, streams: &mut Streams) -> Result<Option<Piece>, DataError> {
        if self.over {
            return Ok(None);
        }
        let mut line = String::new();
        self.over = !self.lines.next_into(&mut line)?;
        let tokens = split_tokens(&line).map_err(|detail| self.lines.error(detail))?;
        let stream = self.stream.get_or_insert_with(|| streams.open(&self.file)).clone();
        let place = at_line(&self.file, self.lines.line());
        Ok(Some(Piece { stream, place, payload: Payload::Tokens(tokens), ends: self.over }))
    }
}

/// Lines that are each a stream, of text (`raw`) or of tokens. Blank lines are passed over.
struct LineStreams {
    file: Arc<str>,
    lines: Lines,
    raw: Option<InputFormat>,
}

impl PieceReader for LineStreams {
    fn next(&mut self, streams: &mut Streams) -> Result<Option<Piece>, DataError> {
        let mut line = String::new();
        while self.lines.next_into(&mut line)? {
            if line.trim().is_empty() {
                continue;
            }
            let payload = match self.raw {
                Some(raw) => Payload::Bytes(raw, line.into_bytes()),
                None => Payload::Tokens(split_tokens(&line).map_err(|detail| self.lines.error(detail))?),
            };
            let stream = streams.open(&format!("{}:{}", self.file, self.lines.line()));
            let place = at_line(&self.file, self.lines.line());
            return Ok(Some(Piece { stream, place, payload, ends: true }));
        }
        Ok(None)
    }
}

/// CoNLL files: each sentence is a stream.
struct Conll {
    file: Arc<str>,
    reader: ConllReader,
    sentences: u64,
}

impl PieceReader for Conll {
    fn next(&mut self, streams: &mut Streams) -> Result<Option<Piece>, DataError> {
        let Some(tokens) = self.reader.tokens()? else {
            return Ok(None);
        };
        self.sentences += 1;
        let stream = streams.open(&format!("{}#{}", self.file, self.sentences));
        let place = at_line(&self.file, self.reader.line());
        Ok(Some(Piece { stream, place, payload: Payload::Tokens(tokens), ends: true }))
    }
}

/// FASTA files: each sequence is a stream.
struct Fasta {
    file: Arc<str>,
    reader: FastaReader,
    stream: Option<Stream>,
}

impl PieceReader for Fasta {
    fn next(&mut self, streams: &mut Streams) -> Result<Option<Piece>, DataError> {
        let stream = match self.stream.take() {
            Some(stream) => stream,
            None => match self.reader.next_sequence()? {
                Some(name) => streams.open_shown(&name),
                None => return Ok(None),
            },
        };
        let mut bases = Vec::new();
        self.reader.read(&mut bases, PIECE_BYTES)?;
        let ends = bases.is_empty() || self.reader.is_sequence_over();
        if !ends {
            self.stream = Some(stream.clone());
        }
        let place = at_line(&self.file, self.reader.line());
        Ok(Some(Piece { stream, place, payload: Payload::Bytes(InputFormat::Dna, bases), ends }))
    }
}

/// JSON lines: `stream` names the stream; a record without it is a stream of its own.
struct Jsonl {
    file: Arc<str>,
    reader: JsonlReader,
    open: HashMap<String, Stream>,
    /// At the end of the file: the streams that are still open.
    closing: Option<std::vec::IntoIter<Stream>>,
    by_class: bool,
}

impl PieceReader for Jsonl {
    fn next(&mut self, streams: &mut Streams) -> Result<Option<Piece>, DataError> {
        if self.closing.is_none()
            && let Some(record) = self.reader.record()?
        {
            return self.piece(record, streams).map(Some);
        }
        let open = &mut self.open;
        let closing = self.closing.get_or_insert_with(|| {
            let mut open: Vec<Stream> = open.drain().map(|(_, stream)| stream).collect();
            open.sort_by_key(|stream| stream.number);
            open.into_iter()
        });
        let place = at_line(&self.file, self.reader.line());
        Ok(closing.next().map(|stream| Piece { stream, place, payload: Payload::Nothing, ends: true }))
    }
}

impl Jsonl {
    fn piece(&mut self, mut record: JsonRecord, streams: &mut Streams) -> Result<Piece, DataError> {
        let ends = match record.event.as_deref() {
            None => record.stream.is_none(),
            Some("end") => true,
            Some(other) => return Err(self.reader.error(format!("expected no event but `end`, found `{other}`"))),
        };
        let mut payload = payload_of(&mut record).map_err(|detail| self.reader.error(detail))?;
        if let Some(class) = record.label_text().filter(|_| self.by_class) {
            payload = Payload::OfClass(class, Box::new(payload));
        }
        let stream = match (record.stream, ends) {
            (None, _) => streams.open(&format!("{}:{}", self.file, self.reader.line())),
            (Some(name), true) => self.open.remove(&name).unwrap_or_else(|| streams.open_shown(&name)),
            (Some(name), false) => match self.open.get(&name) {
                Some(stream) => stream.clone(),
                None => self.open.entry(name).or_insert_with_key(|name| streams.open_shown(name)).clone(),
            },
        };
        Ok(Piece { stream, place: at_line(&self.file, self.reader.line()), payload, ends })
    }
}

/// The tokens of a line: a JSON array of strings, or words parted by white space.
fn split_tokens(line: &str) -> Result<Vec<String>, String> {
    let line = line.trim();
    if !line.starts_with('[') {
        return Ok(line.split_whitespace().map(str::to_string).collect());
    }
    let mut tokens: Vec<String> = serde_json::from_str(line)
        .map_err(|error| format!("a line that begins with `[` must be a JSON array of strings: {error}"))?;
    tokens.retain(|token| !token.is_empty());
    Ok(tokens)
}

/// What a JSON record brings: exactly one of its keys for input, or none if it only ends its stream.
fn payload_of(record: &mut JsonRecord) -> Result<Payload, String> {
    let text = record.text.take().map(|text| Payload::Bytes(InputFormat::Text, text.into_bytes()));
    let dna = record.dna.take().map(|dna| Payload::Bytes(InputFormat::Dna, dna.into_bytes()));
    let vector = record.vector.take().map(|vector| Payload::Bytes(InputFormat::Vector, vector.to_string().into()));
    let tokens = record.tokens.take().map(|mut tokens| {
        tokens.retain(|token| !token.is_empty());
        Payload::Tokens(tokens)
    });
    let notes = record.notes.take().map(|notes| Payload::Bytes(InputFormat::Notes, notes.to_string().into()));
    let mut found = [text, dna, vector, tokens, notes].into_iter().flatten();
    match (found.next(), found.next()) {
        (Some(payload), None) => Ok(payload),
        (None, _) if record.event.is_some() && record.stream.is_some() => Ok(Payload::Nothing),
        (None, _) => Err("expected one of the keys `text`, `tokens`, `dna`, `vector`, `notes`".to_string()),
        (Some(_), Some(_)) => {
            Err("expected only one of the keys `text`, `tokens`, `dna`, `vector`, `notes`".to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    /// Each piece as `stream number, name, payload, end`.
    fn all(text: &'static str, format: FileFormat, lines: bool) -> Vec<String> {
        let source = Source::new("x", Cursor::new(text)).unwrap();
        let mut reader = reader(source, format, lines, InputFormat::Text, false);
        let (mut streams, mut found) = (Streams::default(), Vec::new());
        loop {
            let piece = match reader.next(&mut streams) {
                Ok(Some(piece)) => piece,
                Ok(None) => return found,
                Err(error) => {
                    found.push(error.to_string());
                    return found;
                }
            };
            let payload = match piece.payload {
                Payload::Nothing => "-".to_string(),
                Payload::Bytes(_, bytes) => String::from_utf8(bytes).unwrap(),
                Payload::Tokens(tokens) => tokens.join("|"),
                Payload::OfClass(..) => unreachable!("nobody asked for classes"),
            };
            let end = if piece.ends { " end" } else { "" };
            found.push(format!("{} {} {payload}{end}", piece.stream.number, piece.stream.name));
        }
    }

    #[test]
    fn a_text_is_one_stream_or_a_stream_a_line() {
        assert_eq!(all("a b\nc", FileFormat::Text, false), ["1 x a b\nc", "1 x - end"]);
        assert_eq!(all("a b\n\nc", FileFormat::Text, true), ["1 x:1 a b end", "2 x:3 c end"]);
        assert_eq!(all("a b\n[\"c d\"]", FileFormat::Tokens, false), ["1 x a|b", "1 x c d", "1 x  end"]);
    }

    #[test]
    fn each_sentence_and_each_sequence_is_a_stream() {
        assert_eq!(all("a\tO\nb\tO\n\nc\tO\n", FileFormat::Conll, false), ["1 x#1 a|b end", "2 x#2 c end"]);
        let expected = ["1 one ACGT end", "2 two GG", "2 two  end"];
        assert_eq!(all(">one\nAC\nGT\n>two\nGG\n", FileFormat::Fasta, false), expected);
    }

    #[test]
    fn streams_of_json_lines_go_on_until_they_end() {
        let text = r#"{"stream":"b","text":"1"}
            {"stream":"a","tokens":["2"]}
            {"text":"own"}
            {"stream":"b","event":"end"}
            {"stream":"b","text":"new"}"#;
        let expected = ["1 b 1", "2 a 2", "3 x:3 own end", "1 b - end", "4 b new", "2 a - end", "4 b - end"];
        assert_eq!(all(text, FileFormat::Jsonl, false), expected);
    }

    #[test]
    fn a_json_record_without_input_is_told_with_its_line() {
        let error = all("{\"stream\":\"a\"}", FileFormat::Jsonl, false).remove(0);
        assert_eq!(error, "x, line 1: expected one of the keys `text`, `tokens`, `dna`, `vector`, `notes`");
    }
}
