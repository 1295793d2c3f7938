package dialer

import (
	"sync"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"uvs/dataplane"
	"uvs/packet"
)

// mtu is the longest packet of a connection's: with the longest encapsulation around it, it still fits where Ethernet's 1500 bytes
// do, so that no path MTU has to be found out.
const mtu = 1280

// endpoint is the network interface of the stack: each of its packets leaves by the passage that has its local port.
type endpoint struct {
	up atomic.Pointer[dispatcher]

	mu       sync.RWMutex // guards passages
	passages map[uint16]*dataplane.Passage
}

// dispatcher is what takes packets that came in.
type dispatcher struct{ stack.NetworkDispatcher }

var _ stack.LinkEndpoint = (*endpoint)(nil)

func newEndpoint() *endpoint { return &endpoint{passages: make(map[uint16]*dataplane.Passage)} }

func (e *endpoint) enter(g *dataplane.Passage) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.passages[g.Port()] = g
}

func (e *endpoint) leave(g *dataplane.Passage) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.passages, g.Port())
}

// receive gives the stack a packet.
func (e *endpoint) receive(ip []byte) {
	up := e.up.Load()
	if up == nil || len(ip) == 0 {
		return
	}
	proto := tcpip.NetworkProtocolNumber(ipv4.ProtocolNumber)
	if ip[0]>>4 == 6 {
		proto = ipv6.ProtocolNumber
	}
	p := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(ip)})
	up.DeliverNetworkPacket(proto, p)
	p.DecRef()
}

// WritePackets implements stack.LinkWriter. What belongs to no connection, such as neighbour discovery, is nobody's business.
func (e *endpoint) WritePackets(list stack.PacketBufferList) (int, tcpip.Error) {
	for _, p := range list.AsSlice() {
		if len(p.TransportHeader().Slice()) < len(packet.Ports{}) || p.TransportProtocolNumber != header.TCPProtocolNumber && p.TransportProtocolNumber != header.UDPProtocolNumber {
			continue
		}
		e.mu.RLock()
		g := e.passages[(*packet.Ports)(p.TransportHeader().Slice()).Src()]
		e.mu.RUnlock()
		if g != nil {
			g.Send(p.AsSlices()...)
		}
	}
	return list.Len(), nil // what found no room is lost, as on a wire
}

// MTU implements stack.NetworkLinkEndpoint, as all that follow.
func (*endpoint) MTU() uint32 { return mtu }

// SetMTU does nothing.
func (*endpoint) SetMTU(uint32) {}

// MaxHeaderLength is 0: a passage adds the link's header.
func (*endpoint) MaxHeaderLength() uint16 { return 0 }

// LinkAddress is none.
func (*endpoint) LinkAddress() tcpip.LinkAddress { return "" }

// SetLinkAddress does nothing.
func (*endpoint) SetLinkAddress(tcpip.LinkAddress) {}

// Capabilities says that the packet path has verified checksums.
func (*endpoint) Capabilities() stack.LinkEndpointCapabilities {
	return stack.CapabilityRXChecksumOffload
}

// Attach takes whom to give packets to.
func (e *endpoint) Attach(d stack.NetworkDispatcher) {
	if d == nil {
		e.up.Store(nil)
		return
	}
	e.up.Store(&dispatcher{d})
}

// IsAttached says that there is somebody.
func (e *endpoint) IsAttached() bool { return e.up.Load() != nil }

// Wait has no goroutine to wait for.
func (*endpoint) Wait() {}

// ARPHardwareType is none.
func (*endpoint) ARPHardwareType() header.ARPHardwareType { return header.ARPHardwareNone }

// AddHeader does nothing.
func (*endpoint) AddHeader(*stack.PacketBuffer) {}

// ParseHeader has nothing to parse.
func (*endpoint) ParseHeader(*stack.PacketBuffer) bool { return true }

// Close does nothing.
func (*endpoint) Close() {}

// SetOnCloseAction does nothing.
func (*endpoint) SetOnCloseAction(func()) {}
