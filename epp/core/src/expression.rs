//! Numbers computed from an answer's usage: the part of CEL that is of use there, without its library.
//!
//! Read are numbers, `true`, `false`, `usage.*`, `+ - * / %`, comparisons, `&& || !`, `? :`, parentheses, `has()`,
//! `double()` and `int()`. Integers divide like integers; beside a fraction they count as fractions, which CEL itself
//! would refuse. A count that was not told makes everything unknown that needs it.

use std::str::FromStr;

/// Deepest nesting of an expression.
const MOST_DEPTH: u32 = 64;

/// What an expression may read.
const FIELDS: [(&str, Count); 8] = [
    ("usage.prompt_tokens", Count::Prompt),
    ("usage.input_tokens", Count::Prompt),
    ("usage.completion_tokens", Count::Output),
    ("usage.output_tokens", Count::Output),
    ("usage.total_tokens", Count::Total),
    ("usage.cached_tokens", Count::Cached),
    ("usage.prompt_tokens_details.cached_tokens", Count::Cached),
    ("usage.input_tokens_details.cached_tokens", Count::Cached),
];

/// Token counts as an answer told them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Prompt tokens.
    pub prompt: Option<u32>,
    /// Of those, from the prefix cache.
    pub cached: Option<u32>,
    /// Output tokens.
    pub output: Option<u32>,
}

impl Usage {
    fn count(&self, count: Count) -> Option<i64> {
        let told = match count {
            Count::Prompt => self.prompt,
            Count::Cached => self.cached,
            Count::Output => self.output,
            // An answer without output (an embedding) has all its tokens in the prompt.
            Count::Total => {
                return Some(i64::from(self.prompt?) + i64::from(self.output.unwrap_or(0)));
            }
        };
        told.map(i64::from)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Count {
    Prompt,
    Cached,
    Output,
    Total,
}

/// Why a text is no expression that is read here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("goes wrong at character {at}: expected {expected}")]
pub struct ExpressionError {
    /// Offset of the offending byte, from 0.
    pub at: usize,
    /// What would have been right there.
    pub expected: String,
}

/// A parsed expression.
#[derive(Clone, Debug, PartialEq)]
pub struct Expression(Node);

impl Expression {
    /// Its value as a number; `None` = it is unknown, or no finite number.
    pub fn number(&self, usage: &Usage) -> Option<f64> {
        match self.0.value(usage)? {
            Value::Int(number) => Some(number as f64),
            Value::Double(number) => Some(number).filter(|number| number.is_finite()),
            Value::Bool(_) => None,
        }
    }

    /// Whether it holds; what is unknown does not.
    pub fn holds(&self, usage: &Usage) -> bool {
        self.0.value(usage) == Some(Value::Bool(true))
    }
}

impl FromStr for Expression {
    type Err = ExpressionError;

    fn from_str(text: &str) -> Result<Self, ExpressionError> {
        let mut parser = Parser {
            text,
            at: 0,
            depth: 0,
        };
        let node = parser.choice()?;
        parser.space();
        match parser.at {
            end if end == text.len() => Ok(Self(node)),
            _ => parser.error("an operator, or the end"),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Value {
    Int(i64),
    Double(f64),
    Bool(bool),
}

#[derive(Clone, Debug, PartialEq)]
enum Node {
    Literal(Value),
    Count(Count),
    Has(Count),
    Double(Box<Node>),
    Int(Box<Node>),
    Not(Box<Node>),
    Negative(Box<Node>),
    Binary(Operator, Box<Node>, Box<Node>),
    Choice(Box<Node>, Box<Node>, Box<Node>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Or,
    And,
    Equal,
    Unequal,
    AtMost,
    AtLeast,
    Below,
    Above,
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

/// Operators by how tightly they bind, loosest first; of two that begin alike the longer comes first.
const LEVELS: [&[(&str, Operator)]; 5] = [
    &[("||", Operator::Or)],
    &[("&&", Operator::And)],
    &[
        ("==", Operator::Equal),
        ("!=", Operator::Unequal),
        ("<=", Operator::AtMost),
        (">=", Operator::AtLeast),
        ("<", Operator::Below),
        (">", Operator::Above),
    ],
    &[("+", Operator::Add), ("-", Operator::Subtract)],
    &[
        ("*", Operator::Multiply),
        ("/", Operator::Divide),
        ("%", Operator::Remainder),
    ],
];

impl Node {
    fn value(&self, usage: &Usage) -> Option<Value> {
        match self {
            Self::Literal(value) => Some(*value),
            Self::Count(count) => usage.count(*count).map(Value::Int),
            Self::Has(count) => Some(Value::Bool(usage.count(*count).is_some())),
            Self::Double(node) => node.value(usage)?.double().map(Value::Double),
            Self::Int(node) => match node.value(usage)? {
                Value::Double(number) if number.abs() < 9e15 => Some(Value::Int(number as i64)),
                Value::Int(number) => Some(Value::Int(number)),
                Value::Double(_) | Value::Bool(_) => None,
            },
            Self::Not(node) => Some(Value::Bool(!node.value(usage)?.bool()?)),
            Self::Negative(node) => match node.value(usage)? {
                Value::Int(number) => number.checked_neg().map(Value::Int),
                Value::Double(number) => Some(Value::Double(-number)),
                Value::Bool(_) => None,
            },
            Self::Choice(condition, yes, no) => {
                let chosen = if condition.value(usage)?.bool()? {
                    yes
                } else {
                    no
                };
                chosen.value(usage)
            }
            Self::Binary(operator, left, right) => binary(*operator, left, right, usage),
        }
    }
}

impl Value {
    fn bool(self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(value),
            Self::Int(_) | Self::Double(_) => None,
        }
    }

    fn double(self) -> Option<f64> {
        match self {
            Self::Int(number) => Some(number as f64),
            Self::Double(number) => Some(number),
            Self::Bool(_) => None,
        }
    }
}

fn binary(operator: Operator, left: &Node, right: &Node, usage: &Usage) -> Option<Value> {
    // One side that decides is enough, even where the other is unknown.
    if let Operator::Or | Operator::And = operator {
        let decides = operator == Operator::Or;
        let side = |node: &Node| node.value(usage).and_then(Value::bool);
        return match (side(left), side(right)) {
            (Some(value), _) | (_, Some(value)) if value == decides => Some(Value::Bool(decides)),
            (Some(_), Some(_)) => Some(Value::Bool(!decides)),
            _ => None,
        };
    }
    match (left.value(usage)?, right.value(usage)?) {
        (Value::Int(left), Value::Int(right)) => integers(operator, left, right),
        (Value::Bool(left), Value::Bool(right)) => match operator {
            Operator::Equal => Some(Value::Bool(left == right)),
            Operator::Unequal => Some(Value::Bool(left != right)),
            _ => None,
        },
        (left, right) => doubles(operator, left.double()?, right.double()?),
    }
}

fn integers(operator: Operator, left: i64, right: i64) -> Option<Value> {
    let number = match operator {
        Operator::Add => left.checked_add(right),
        Operator::Subtract => left.checked_sub(right),
        Operator::Multiply => left.checked_mul(right),
        Operator::Divide => left.checked_div(right),
        Operator::Remainder => left.checked_rem(right),
        _ => return compared(operator, &left, &right),
    };
    number.map(Value::Int)
}

fn doubles(operator: Operator, left: f64, right: f64) -> Option<Value> {
    let number = match operator {
        Operator::Add => left + right,
        Operator::Subtract => left - right,
        Operator::Multiply => left * right,
        Operator::Divide => left / right,
        Operator::Remainder => return None,
        _ => return compared(operator, &left, &right),
    };
    Some(Value::Double(number))
}

fn compared<T: PartialOrd>(operator: Operator, left: &T, right: &T) -> Option<Value> {
    Some(Value::Bool(match operator {
        Operator::Equal => left == right,
        Operator::Unequal => left != right,
        Operator::AtMost => left <= right,
        Operator::AtLeast => left >= right,
        Operator::Below => left < right,
        Operator::Above => left > right,
        _ => return None,
    }))
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
    depth: u32,
}

impl<'t> Parser<'t> {
    fn error<T>(&self, expected: impl Into<String>) -> Result<T, ExpressionError> {
        Err(ExpressionError {
            at: self.at,
            expected: expected.into(),
        })
    }

    fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn space(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    fn take(&mut self, token: &str) -> bool {
        self.space();
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn want(&mut self, token: &str) -> Result<(), ExpressionError> {
        if self.take(token) {
            return Ok(());
        }
        self.error(format!("`{token}`"))
    }

    fn choice(&mut self) -> Result<Node, ExpressionError> {
        if self.depth == MOST_DEPTH {
            return self.error("at most 64 levels of nesting");
        }
        self.depth += 1;
        let condition = self.level(0)?;
        let node = if self.take("?") {
            let yes = self.choice()?;
            self.want(":")?;
            let no = self.choice()?;
            Node::Choice(condition.into(), yes.into(), no.into())
        } else {
            condition
        };
        self.depth -= 1;
        Ok(node)
    }

    fn level(&mut self, level: usize) -> Result<Node, ExpressionError> {
        let Some(operators) = LEVELS.get(level) else {
            return self.unary();
        };
        let mut left = self.level(level + 1)?;
        while let Some((_, operator)) = operators.iter().find(|(token, _)| self.take(token)) {
            let right = self.level(level + 1)?;
            left = Node::Binary(*operator, left.into(), right.into());
        }
        Ok(left)
    }

    fn unary(&mut self) -> Result<Node, ExpressionError> {
        if self.depth == MOST_DEPTH {
            return self.error("at most 64 levels of nesting");
        }
        self.depth += 1;
        let node = if self.take("!") {
            Node::Not(self.unary()?.into())
        } else if self.take("-") {
            Node::Negative(self.unary()?.into())
        } else {
            self.primary()?
        };
        self.depth -= 1;
        Ok(node)
    }

    fn primary(&mut self) -> Result<Node, ExpressionError> {
        if self.take("(") {
            let node = self.choice()?;
            self.want(")")?;
            return Ok(node);
        }
        let begin = self.at;
        let word = self.word();
        match word {
            "" => self.error("a number, `usage.…`, or a parenthesis"),
            "true" => Ok(Node::Literal(Value::Bool(true))),
            "false" => Ok(Node::Literal(Value::Bool(false))),
            "has" | "double" | "int" => self.call(word),
            number if number.starts_with(|first: char| first.is_ascii_digit()) => {
                let value = match number.parse() {
                    Ok(number) => Ok(Value::Int(number)),
                    Err(_) => number.parse().map(Value::Double),
                };
                self.at = if value.is_ok() { self.at } else { begin };
                value.map_or_else(|_| self.error("a number"), |value| Ok(Node::Literal(value)))
            }
            field => match FIELDS.iter().find(|(name, _)| *name == field) {
                Some((_, count)) => Ok(Node::Count(*count)),
                None => {
                    self.at = begin;
                    let known: Vec<_> = FIELDS.iter().map(|(name, _)| *name).collect();
                    self.error(format!("one of {}", known.join(", ")))
                }
            },
        }
    }

    fn word(&mut self) -> &'t str {
        self.space();
        let rest = self.rest();
        let inside =
            |character: char| character.is_ascii_alphanumeric() || "._".contains(character);
        let length = rest
            .find(|character| !inside(character))
            .unwrap_or(rest.len());
        self.at += length;
        rest.get(..length).unwrap_or_default()
    }

    fn call(&mut self, function: &str) -> Result<Node, ExpressionError> {
        self.want("(")?;
        let argument = self.choice()?;
        let node = match (function, argument) {
            ("has", Node::Count(count)) => Node::Has(count),
            ("has", _) => return self.error("a field of usage in has()"),
            ("double", argument) => Node::Double(argument.into()),
            (_, argument) => Node::Int(argument.into()),
        };
        self.want(")")?;
        Ok(node)
    }
}

#[cfg(test)]
mod tests;
