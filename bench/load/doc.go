// Package load makes load for a director: new TCP connections, held ones, HTTP requests and UDP datagrams, from thousands of source
// addresses. The schedule is open: what is to begin at a time begins then, however slow the answers to others are, and latency
// counts from that time, not from when there was room to begin ("coordinated omission").
package load
