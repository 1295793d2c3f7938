// Package decap is the real server's end of a TUN director's tunnel, for hosts whose kernel cannot decapsulate: it
// takes tunnelled packets (IP-in-IP, GRE, GUE, of and over either IP family) off the wire, judges them, and hands the packets
// inside to the host's stack through a TUN device that holds the virtual addresses. Answers are the stack's own affair: they
// leave by the host's routes straight to the client.
//
//	wire -> tap (AF_PACKET) -> Rules.Open -> TUN device -> the host's stack -> its routes -> client
//
// Rules are functions over bytes; Decapsulator ties them to sockets and device, in one goroutine for each IP family
// that tunnels come in, which allocates nothing per packet.
package decap
