package health

import (
	"context"
	"net"

	"uvs/packet"
)

// ARP is the kind "arp": a real server on a segment of the director's must answer for its own address, by ARP or, for IPv6, by
// neighbour discovery. It costs the server nothing, and tells that the host is there even if its firewall drops ICMP.
type ARP struct {
	// Interface is where the server is asked for. Default: the one whose network the server's address is in.
	Interface string `json:"interface,omitempty"`

	solicitor *solicitor // the process's, but in tests
}

// Kind implements Prober.
func (*ARP) Kind() string { return "arp" }

// DirectOnly implements DirectOnly.
func (*ARP) DirectOnly() {}

// Prepare implements Prober.
func (a *ARP) Prepare() error {
	if a.solicitor == nil {
		a.solicitor = neighbours
	}
	return nil
}

// Probe implements Prober.
func (a *ARP) Probe(ctx context.Context, to *Target) (string, error) {
	mac, err := a.solicitor.ask(ctx, to.Server.Addr(), a.Interface, to.Record)
	if err != nil {
		return "", err
	}
	if mac == (packet.MAC{}) {
		return "it is there", nil
	}
	return net.HardwareAddr(mac[:]).String(), nil
}
