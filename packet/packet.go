// Package packet reads and rewrites network headers in place. A header is a view over the frame's own bytes: parsing
// copies nothing and allocates nothing, and is the only place where lengths are checked. Byte order is this package's
// business alone: everybody else sees host-order integers and typed values.
package packet
