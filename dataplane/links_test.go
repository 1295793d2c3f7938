package dataplane

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"uvs/dataplane/link"
	"uvs/dataplane/nexthop"
	"uvs/packet"
	"uvs/service"
)

// mortal is a link whose interface may go down, disappear and return.
type mortal struct {
	*link.Mem
	iface  *mortalInterface
	epoch  int
	mac    packet.MAC
	closed bool
}

// mortalInterface is such an interface. All links on it opened before it disappeared stay dead.
type mortalInterface struct {
	mu     sync.Mutex
	epoch  int // odd: it is not there
	down   bool
	mac    packet.MAC
	opened []*mortal
}

func (m *mortalInterface) open() (link.Link, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.epoch%2 == 1:
		return nil, link.ErrNoInterface
	case m.down:
		return nil, link.ErrDown
	}
	for _, l := range m.opened {
		if l.epoch != m.epoch && !l.closed {
			return nil, fmt.Errorf("EINVAL: somebody is still in the old fanout group")
		}
	}
	l := &mortal{Mem: link.NewMem(link.MemConfig{}), iface: m, epoch: m.epoch, mac: m.mac}
	m.opened = append(m.opened, l)
	return l, nil
}

func (m *mortalInterface) set(change func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change()
}

// sent are the frames that left by any link on the interface.
func (m *mortalInterface) sent() (frames [][]byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, l := range m.opened {
		frames = append(frames, withoutProbes(l.Mem.Sent())...)
	}
	return frames
}

// last is the link opened last.
func (m *mortalInterface) last() *mortal { return m.opened[len(m.opened)-1] }

func (l *mortal) Err() error {
	l.iface.mu.Lock()
	defer l.iface.mu.Unlock()
	switch {
	case l.epoch != l.iface.epoch:
		return fmt.Errorf("link: %w", link.ErrGone)
	case l.iface.down:
		return fmt.Errorf("link: %w", link.ErrDown)
	}
	l.mac = l.iface.mac
	return nil
}

// Info is as Err found the interface last.
func (l *mortal) Info() link.Info { return link.Info{MAC: l.mac} }

func (l *mortal) Close() error {
	l.iface.mu.Lock()
	defer l.iface.mu.Unlock()
	l.closed = true
	return nil
}

// mortalDirector has mortal interfaces in the place of the harness's links: rx the workers', tx the slow path's.
func mortalDirector(t testing.TB, workers int) (d *director, rx, tx [2]*mortalInterface) {
	for i, mac := range []packet.MAC{cliMAC, rsMAC} {
		rx[i], tx[i] = &mortalInterface{mac: mac}, &mortalInterface{mac: mac}
	}
	d = newDirector(t, func(c *Config) {
		c.Workers, c.Ports[0].FollowMAC = workers, true
		c.OpenRx = func(_, port int) (link.Link, error) { return rx[port].open() }
		c.OpenTx = func(port int) (link.Link, error) { return tx[port].open() }
	})
	return d, rx, tx
}

func TestLinksAreOpenedAnewWhenTheirInterfaceReturns(t *testing.T) {
	for _, workers := range []int{1, 3} {
		d, rx, tx := mortalDirector(t, workers)
		d.serve(service.TCP, service.Route, "10.1.0.11:80")
		d.run()
		rx[0].last().Inject(fromClient(t, client, "S", ""))
		d.run()
		one(t, rx[1].sent())

		// The interface disappears, and returns with another MAC address.
		newMAC := packet.MAC{2, 0, 0, 0, 9, 0x77}
		for _, m := range []*mortalInterface{rx[0], tx[0]} {
			m.set(func() { m.epoch++ })
		}
		for range 5 {
			d.now += second
			d.run()
		}
		tx[0].sent()
		for _, m := range []*mortalInterface{rx[0], tx[0]} {
			m.set(func() { m.epoch, m.mac = m.epoch+1, newMAC })
		}
		for range 3 { // workers let go of the old group first
			d.now += second
			d.run()
		}
		f := fromClient(t, client, "A", "")
		(*packet.Eth)(f).SetDst(newMAC)
		rx[0].last().Inject(f)
		d.run()
		one(t, rx[1].sent())
		announced := tx[0].sent()
		if len(announced) == 0 {
			t.Fatalf("%d workers: addresses were not announced on the interface that came back", workers)
		}
		a, ok := packet.ParseARP(announced[0][packet.VnetLen+packet.EthLen:])
		if !ok || a.SenderMAC() != newMAC || a.Sender() != 0x0a090064 {
			t.Errorf("%d workers: announced %x, want the VIP at %v", workers, announced[0], newMAC)
		}
		d.plane.Ask(0, nexthop.Question{Sender: packet.AddrFrom4(0x0a090001), Target: packet.AddrFrom4(0x0a0900fe)})
		d.run()
		if a, ok = packet.ParseARP(one(t, tx[0].sent())[packet.VnetLen+packet.EthLen:]); !ok || a.SenderMAC() != newMAC {
			t.Errorf("%d workers: the resolver's request was sent as from %v", workers, a.SenderMAC())
		}
		if got := d.plane.LinkStats(0).RxFrames; got != 2 {
			t.Errorf("%d workers: %d frames received on the interface, old and new, want 2", workers, got)
		}
		d.accounted()
	}
}

// A living interface may get another MAC address, as a bond does whose first member goes, or by the operator's hand.
func TestAnInterfacesNewMACIsFollowed(t *testing.T) {
	d, rx, tx := mortalDirector(t, 2)
	d.serve(service.TCP, service.Route, "10.1.0.11:80")
	for range 6 {
		d.run()
		d.now += second
	}
	tx[0].sent()
	tx[1].sent()
	newMAC := packet.MAC{2, 0, 0, 0, 9, 0x77}
	for i := range 2 { // the second port's address is uvs's own, whatever the interface has
		for _, m := range []*mortalInterface{rx[i], tx[i]} {
			m.set(func() { m.mac = newMAC })
		}
	}
	d.now += second / 10
	d.plane.Wake() // the resolver saw it
	d.run()
	a, ok := packet.ParseARP(one(t, tx[0].sent())[packet.VnetLen+packet.EthLen:])
	if !ok || a.SenderMAC() != newMAC || a.Sender() != 0x0a090064 {
		t.Errorf("announced %x, want the VIP at %v", a, newMAC)
	}
	if got := tx[1].sent(); len(got) != 0 {
		t.Errorf("announced on another interface: %x", got)
	}
	f := fromClient(t, client, "S", "")
	rx[0].last().Inject(slices.Clone(f)) // to the address of before
	d.run()
	if got := rx[1].sent(); len(got) != 0 {
		t.Errorf("a frame to the old MAC address was forwarded: %x", got)
	}
	(*packet.Eth)(f).SetDst(newMAC)
	rx[0].last().Inject(f)
	d.run()
	if got := (*packet.Eth)(one(t, rx[1].sent())[packet.VnetLen:]).Src(); got != rsMAC {
		t.Errorf("forwarded as from %v, want uvs's own %v", got, rsMAC)
	}
	d.accounted()
}

func TestAddressesAreAnnouncedWhenAnInterfaceComesUp(t *testing.T) {
	d, _, tx := mortalDirector(t, 1)
	d.serve(service.TCP, service.Route, "10.1.0.11:80")
	for range 6 {
		d.run()
		d.now += second
	}
	tx[0].set(func() { tx[0].down = true })
	d.run()
	tx[0].sent()
	tx[1].sent()
	tx[0].set(func() { tx[0].down = false })
	d.now += second / 10
	d.plane.Wake() // the resolver saw it
	d.run()
	a, ok := packet.ParseARP(one(t, tx[0].sent())[packet.VnetLen+packet.EthLen:])
	if !ok || a.Sender() != 0x0a090064 {
		t.Errorf("announced %x, want the VIP", a)
	}
	if got := tx[1].sent(); len(got) != 0 {
		t.Errorf("announced on another interface: %x", got)
	}
}

// TestARunningPlaneSurvivesItsInterface lets interfaces come and go under workers of their own threads.
func TestARunningPlaneSurvivesItsInterface(t *testing.T) {
	d, rx, tx := mortalDirector(t, 2)
	d.serve(service.TCP, service.Route, "10.1.0.11:80")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- d.plane.Run(ctx) }()
	for range 3 {
		for _, m := range []*mortalInterface{rx[0], tx[0]} {
			m.set(func() { m.epoch++ })
		}
		d.plane.Wake()
		d.plane.LinkStats(0)
		time.Sleep(150 * time.Millisecond)
		d.plane.Stats()
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// The segment of an address can come to be known, or be another, long after the address: with the interface that returns,
// or the operator's renumbering.
func TestAddressesAreAnnouncedWhereRoutesComeToSay(t *testing.T) {
	on, known := 0, false
	d := newDirector(t, func(c *Config) {
		c.AnnounceOn = func(packet.Addr) (int, bool) { return on, known }
	})
	settle := func(want ...int) {
		t.Helper()
		seen := map[int]bool{}
		for range 6 { // the burst is over
			for port, frames := range d.run() {
				for _, f := range frames {
					if a, ok := packet.ParseARP(f[packet.VnetLen+packet.EthLen:]); ok && a.Sender() == 0x0a090064 {
						seen[port] = true
					}
				}
			}
			d.now += second
		}
		for port := range 2 {
			if seen[port] != slices.Contains(want, port) {
				t.Errorf("announced on %v, want %v", seen, want)
			}
		}
	}
	d.serve(service.TCP, service.Route, "10.1.0.11:80")
	settle(0) // the one without a gateway
	on, known = 1, true
	settle()
	d.plane.Wake()
	settle(1)
	d.plane.Wake() // news of something else
	settle()
	on = 0
	d.plane.Wake()
	settle(0)
	d.accounted()
}
