//! A second bencode decoder, written from BEP 3 and nothing else, to hold against the one in use:
//! plain recursion, one character at a time, a tree of copies.

/// A bencoded value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tree {
    Int(i64),
    Bytes(Vec<u8>),
    List(Vec<Tree>),
    /// As it came: in any order, keys perhaps twice. With each value its bytes.
    Dict(Vec<(Vec<u8>, Tree, Vec<u8>)>),
}

impl Tree {
    pub fn int(&self) -> Option<i64> {
        if let Tree::Int(n) = self { Some(*n) } else { None }
    }

    pub fn bytes(&self) -> Option<&[u8]> {
        if let Tree::Bytes(b) = self { Some(b) } else { None }
    }

    pub fn list(&self) -> Option<&[Tree]> {
        if let Tree::List(l) = self { Some(l) } else { None }
    }

    /// The first value of a key.
    pub fn get(&self, key: &str) -> Option<&Tree> {
        self.entry(key).map(|(value, _)| value)
    }

    /// The same, with the value's bytes.
    pub fn entry(&self, key: &str) -> Option<(&Tree, &[u8])> {
        let Tree::Dict(entries) = self else { return None };
        let entry = entries.iter().find(|(k, ..)| k == key.as_bytes());
        entry.map(|(_, value, raw)| (value, &raw[..]))
    }

    /// As BEP 3 wants it written: keys in order, none twice.
    pub fn canonical(&self) -> Vec<u8> {
        let string = |bytes: &[u8]| [bytes.len().to_string().as_bytes(), b":", bytes].concat();
        match self {
            Tree::Int(n) => format!("i{n}e").into_bytes(),
            Tree::Bytes(bytes) => string(bytes),
            Tree::List(items) => {
                let items: Vec<u8> = items.iter().flat_map(Tree::canonical).collect();
                [b"l", &items[..], b"e"].concat()
            }
            Tree::Dict(entries) => {
                let mut first = std::collections::BTreeMap::new();
                for (key, value, _) in entries {
                    first.entry(key).or_insert(value);
                }
                let entries =
                    first.into_iter().flat_map(|(k, v)| [string(k), v.canonical()].concat());
                [b"d", &entries.collect::<Vec<u8>>()[..], b"e"].concat()
            }
        }
    }
}

/// Reads the value that `data` begins with, and its length.
pub fn read(data: &[u8], depth_max: usize, tokens_max: usize) -> Option<(Tree, usize)> {
    let mut reader = Reader { data, at: 0, tokens: tokens_max };
    let tree = reader.value(depth_max)?;
    Some((tree, reader.at))
}

struct Reader<'a> {
    data: &'a [u8],
    at: usize,
    tokens: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.data.get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    fn value(&mut self, depth: usize) -> Option<Tree> {
        self.tokens = self.tokens.checked_sub(1)?;
        match self.peek()? {
            b'i' => {
                self.next();
                let number = self.number(b'e', true)?;
                i64::try_from(number).ok().map(Tree::Int)
            }
            b'0'..=b'9' => self.string().map(Tree::Bytes),
            b'l' => {
                let depth = depth.checked_sub(1)?;
                self.next();
                let mut items = Vec::new();
                while self.peek()? != b'e' {
                    items.push(self.value(depth)?);
                }
                self.next();
                Some(Tree::List(items))
            }
            b'd' => {
                let depth = depth.checked_sub(1)?;
                self.next();
                let mut entries = Vec::new();
                while self.peek()? != b'e' {
                    self.tokens = self.tokens.checked_sub(1)?;
                    let key = self.string()?;
                    let start = self.at;
                    let value = self.value(depth)?;
                    entries.push((key, value, self.data[start..self.at].to_vec()));
                }
                self.next();
                Some(Tree::Dict(entries))
            }
            _ => None,
        }
    }

    fn string(&mut self) -> Option<Vec<u8>> {
        let len = usize::try_from(self.number(b':', false)?).ok()?;
        let bytes = self.data.get(self.at..)?.get(..len)?;
        self.at += len;
        Some(bytes.to_vec())
    }

    // Decimal digits up to `end`, without a leading zero that is not the number itself.
    fn number(&mut self, end: u8, signed: bool) -> Option<i128> {
        let mut text = String::new();
        loop {
            let byte = self.next()?;
            if byte == end {
                break;
            }
            text.push(char::from(byte));
            if text.len() > 30 {
                return None;
            }
        }
        let number: i128 = text.parse().ok()?;
        (number.to_string() == text && (signed || number >= 0)).then_some(number)
    }
}
