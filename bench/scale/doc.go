// Package scale measures what large configurations and tables do to uvs: the connection table from a thousand entries to ten
// million, listings of a million, tens of thousands of services and their changes, many workers. It runs the packet path
// without a socket, on links that make their frames themselves, and like package bench judges nothing.
package scale
