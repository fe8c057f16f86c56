//! The grammar of label selectors.

use std::collections::BTreeSet;

use super::{Requirement, SelectorError, Test};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a str),
    Comma,
    Open,
    Close,
    Not,
    Equals,
    NotEquals,
    Greater,
    Less,
    End,
    /// A character that begins nothing.
    Other(char),
}

/// The requirements of a selector.
pub(super) fn selector(text: &str) -> Result<Vec<Requirement>, SelectorError> {
    let mut parser = Parser { text, rest: text };
    let mut requirements = Vec::new();
    if parser.peek() == Token::End {
        return Ok(requirements);
    }
    loop {
        requirements.push(parser.requirement()?);
        match parser.next() {
            Token::End => return Ok(requirements),
            Token::Comma => {}
            found => return Err(parser.wrong(found, "',' or the end")),
        }
    }
}

#[derive(Clone, Copy)]
struct Parser<'a> {
    text: &'a str,
    rest: &'a str,
}

impl<'a> Parser<'a> {
    /// Takes the next token.
    fn next(&mut self) -> Token<'a> {
        let rest = self.rest.trim_start_matches([' ', '\t', '\r', '\n']);
        let special = |c: char| matches!(c, '=' | '!' | '(' | ')' | ',' | '>' | '<');
        let (token, length) = match rest.chars().next() {
            None => (Token::End, 0),
            Some(',') => (Token::Comma, 1),
            Some('(') => (Token::Open, 1),
            Some(')') => (Token::Close, 1),
            Some('>') => (Token::Greater, 1),
            Some('<') => (Token::Less, 1),
            Some('=') if rest.starts_with("==") => (Token::Equals, 2),
            Some('=') => (Token::Equals, 1),
            Some('!') if rest.starts_with("!=") => (Token::NotEquals, 2),
            Some('!') => (Token::Not, 1),
            Some(first) => {
                let end = rest
                    .find(|c: char| special(c) || c.is_ascii_whitespace())
                    .unwrap_or(rest.len());
                match &rest[..end] {
                    "" => (Token::Other(first), first.len_utf8()),
                    word => (Token::Word(word), end),
                }
            }
        };
        self.rest = &rest[length..];
        token
    }

    /// The next token, left where it is.
    fn peek(&self) -> Token<'a> {
        self.clone().next()
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        let absent = self.peek() == Token::Not;
        if absent {
            self.next();
        }
        let key = match self.next() {
            Token::Word(word) => label_key(word)?.to_owned(),
            found => return Err(self.wrong(found, "a label key")),
        };
        let test = match self.peek() {
            _ if absent => Test::Absent,
            Token::End | Token::Comma => Test::Exists,
            _ => self.test()?,
        };
        Ok(Requirement { key, test })
    }

    fn test(&mut self) -> Result<Test, SelectorError> {
        Ok(match self.next() {
            Token::Equals => Test::Is(self.value()?),
            Token::NotEquals => Test::IsNot(self.value()?),
            Token::Word("in") => Test::In(self.values()?),
            Token::Word("notin") => Test::NotIn(self.values()?),
            Token::Greater => Test::Greater(self.integer()?),
            Token::Less => Test::Less(self.integer()?),
            found => {
                return Err(self.wrong(found, "an operator (=, ==, !=, in, notin, >, <)"));
            }
        })
    }

    /// One value; none at all is the empty value.
    fn value(&mut self) -> Result<String, SelectorError> {
        match self.peek() {
            Token::End | Token::Comma => Ok(String::new()),
            Token::Word(word) => {
                self.next();
                label_value(word).map(str::to_owned)
            }
            found => Err(self.wrong(found, "a label value")),
        }
    }

    fn integer(&mut self) -> Result<i64, SelectorError> {
        let value = self.value()?;
        value.parse().map_err(|_| SelectorError::Integer(value))
    }

    /// Values in brackets. Between commas, or where there is none, stands the empty value.
    fn values(&mut self) -> Result<BTreeSet<String>, SelectorError> {
        match self.next() {
            Token::Open => {}
            found => return Err(self.wrong(found, "'('")),
        }
        let mut values = BTreeSet::new();
        loop {
            let value = match self.peek() {
                Token::Word(word) => {
                    self.next();
                    label_value(word)?
                }
                Token::Comma | Token::Close => "",
                found => return Err(self.wrong(found, "a label value, ',' or ')'")),
            };
            values.insert(value.to_owned());
            match self.next() {
                Token::Comma => {}
                Token::Close => return Ok(values),
                found => return Err(self.wrong(found, "',' or ')'")),
            }
        }
    }

    fn wrong(&self, found: Token<'_>, expected: &'static str) -> SelectorError {
        let found = match found {
            Token::Word(word) => format!("{word:?}"),
            Token::Comma => "','".into(),
            Token::Open => "'('".into(),
            Token::Close => "')'".into(),
            Token::Not => "'!'".into(),
            Token::Equals => "'='".into(),
            Token::NotEquals => "'!='".into(),
            Token::Greater => "'>'".into(),
            Token::Less => "'<'".into(),
            Token::End => "the end".into(),
            Token::Other(other) => format!("{other:?}"),
        };
        SelectorError::Grammar {
            selector: self.text.to_owned(),
            found,
            expected,
        }
    }
}

fn label_key(key: &str) -> Result<&str, SelectorError> {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    let subdomain = |prefix: &str| {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let part = |part: &str| {
            part.bytes().all(allowed)
                && !part.is_empty()
                && !part.starts_with('-')
                && !part.ends_with('-')
        };
        prefix.len() <= 253 && prefix.split('.').all(part)
    };
    if !name.is_empty() && is_label_value(name) && prefix.is_none_or(subdomain) {
        Ok(key)
    } else {
        Err(SelectorError::Key(key.to_owned()))
    }
}

fn label_value(value: &str) -> Result<&str, SelectorError> {
    if is_label_value(value) {
        Ok(value)
    } else {
        Err(SelectorError::Value(value.to_owned()))
    }
}

fn is_label_value(value: &str) -> bool {
    let bytes = value.as_bytes();
    let edge = |byte: Option<&u8>| byte.is_none_or(u8::is_ascii_alphanumeric);
    bytes.len() <= 63
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b))
        && edge(bytes.first())
        && edge(bytes.last())
}
