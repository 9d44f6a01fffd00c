//! Nothing: this package is its tests. They put themselves in the place of the system's calls.
