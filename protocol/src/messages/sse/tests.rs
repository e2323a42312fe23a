//! Stories of the splitter.
