package dataplane

import (
	"net/netip"
	"testing"

	"uvs/service"
)

// TestAnIdleWorkerExpiresAllThatIsDue has far more connections run out than one batch's share.
func TestAnIdleWorkerExpiresAllThatIsDue(t *testing.T) {
	d := newDirector(t, nil)
	vs := d.serve(service.UDP, service.Route, "10.1.0.11:53")
	d.run()
	const n = 10 * expireBudget
	for i := range n {
		d.mem[0].Inject(datagram(t, netip.AddrPortFrom(client.Addr(), uint16(1024+i)), netip.AddrPortFrom(vip, 53), "query"))
	}
	d.run()
	if got := vs.Servers[0].Inactive(); got != n {
		t.Fatalf("%d connections, want %d", got, n)
	}
	d.now += 302 * second
	d.run()
	if got := vs.Servers[0].Inactive(); got != 0 {
		t.Errorf("%d connections are still counted after their time was up and the worker fell idle", got)
	}
}
