// Package decap is the real server's end of a TUN director's tunnel, for hosts whose kernel cannot decapsulate IP-in-IP:
// it takes tunnelled packets off the wire, judges them, and hands the packets inside to the host's stack through a TUN
// device that holds the virtual addresses. Answers are the stack's own affair: they leave by the host's routes straight
// to the client.
//
//	wire -> tap (AF_PACKET) -> Rules.Open -> TUN device -> the host's stack -> its routes -> client
//
// Rules are functions over bytes; Decapsulator ties them to sockets and device, in one goroutine that allocates nothing
// per packet.
package decap
