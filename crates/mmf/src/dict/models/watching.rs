//! Who watches, beside a writer that writes over what has not been read yet.
