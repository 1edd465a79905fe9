//! The identities of a message: [`MessageId`] and [`Position`].

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

/// An opaque, cheaply cloned text with a meaning of its own.
macro_rules! opaque_text {
    ($(#[$docs:meta])* $name:ident) => {
        $(#[$docs])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            #[doc = concat!("Wraps the text by which a driver knows this `", stringify!($name), "`.")]
            pub fn new(text: impl Into<Arc<str>>) -> Self {
                Self(text.into())
            }

            /// Returns the text that the driver gave.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), &self.0)
            }
        }
    };
}

opaque_text! {
    /// Names one message among all messages of a queue, whatever the subscription that hands it out.
    ///
    /// The text is the driver's own: compare ids for equality, store them, never parse them.
    MessageId
}

opaque_text! {
    /// The place of one message in its topic's log.
    ///
    /// The text is the driver's own, made so that positions of one topic compare in log order.
    Position
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_travel_as_plain_text() {
        let id = MessageId::new("17");
        assert_eq!((id.to_string(), format!("{id:?}")), ("17".into(), "MessageId(17)".into()));
        assert_eq!(serde_json::to_string(&id).unwrap(), "\"17\"");
        assert_eq!(serde_json::from_str::<MessageId>("\"17\"").unwrap(), id);
    }
}
