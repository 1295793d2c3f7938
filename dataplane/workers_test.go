package dataplane

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"uvs/dataplane/link"
	"uvs/packet"
	"uvs/service"
)

// TestEightWorkersTranslateBothWays has clients talk to servers by NAT while the packets of each connection come to workers at
// random, all at once: every packet must find the connection that another worker made or stepped. Round robin, whose cursor
// they share, gives each server exactly its share.
func TestEightWorkersTranslateBothWays(t *testing.T) {
	const workers, clients, each, firstPort = 8, 8, 75, 20000
	var rx [workers][2]*link.Mem
	var sent [clients * each]chan []byte // to whomever and by whichever worker, by the connection's number
	for i := range sent {
		sent[i] = make(chan []byte, 1)
	}
	d := newDirector(t, func(c *Config) {
		c.Workers = workers
		c.OpenRx = func(worker, port int) (link.Link, error) {
			rx[worker][port] = link.NewMem(link.MemConfig{Refuse: func(frame []byte) syscall.Errno {
				if p := new(packet.Packet); packet.Decode(frame[packet.VnetLen:], p) == packet.NoFault && p.Proto == packet.ProtoTCP {
					sent[max(p.SrcPort, p.DstPort)-firstPort] <- append([]byte(nil), frame[packet.VnetLen:]...)
				}
				return 0
			}})
			return rx[worker][port], nil
		}
	})
	vs := d.serve(service.TCP, service.Masq, "10.1.0.11:8080", "10.1.0.12:8080", "10.1.0.13:8080")
	ctx, cancel := context.WithCancel(t.Context())
	running := make(chan error)
	go func() { running <- d.plane.Run(ctx) }()

	// pass has a frame come in at a port of any worker and returns the flow that it was sent on as.
	pass := func(r *rand.Rand, number, port int, frame []byte) (packet.Flow, error) {
		w := r.IntN(workers)
		rx[w][port].Inject(frame)
		d.plane.workers[w].poller.Wake()
		select {
		case out := <-sent[number]:
			var p packet.Packet
			packet.Decode(out, &p)
			return p.Flow, nil
		case <-time.After(30 * time.Second):
			return packet.Flow{}, fmt.Errorf("connection %d: a packet that worker %d got on port %d was not sent on", number, w, port)
		}
	}
	connection := func(r *rand.Rand, number int) error {
		from := netip.AddrPortFrom(client.Addr(), uint16(firstPort+number))
		to := packet.Addr{}
		for _, flags := range []string{"S", "A", "PA", "FA"} {
			f, err := pass(r, number, 0, fromClient(t, from, flags, ""))
			if err != nil {
				return err
			}
			if to.IsZero() {
				to = f.Dst
			}
			if f.Src != packet.AddrFrom(from.Addr()) || f.SrcPort != from.Port() || f.Dst != to || f.DstPort != 8080 {
				return fmt.Errorf("connection %d: the client's %s was sent on as %+v, the server being %v", number, flags, f, to)
			}
			if flags == "S" {
				flags = "SA"
			}
			f, err = pass(r, number, 1, fromServer(t, byte(to.V4()), from, flags, ""))
			if err != nil {
				return err
			}
			if f.Src != packet.AddrFrom(vip) || f.SrcPort != 80 || f.Dst != packet.AddrFrom(from.Addr()) || f.DstPort != from.Port() {
				return fmt.Errorf("connection %d: the server's %s was sent on as %+v", number, flags, f)
			}
		}
		return nil
	}
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 8))
			for n := range each {
				if err := connection(r, i*each+n); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	cancel()
	if err := <-running; err != nil {
		t.Error(err)
	}
	counts := make([]service.Counters, 3)
	d.plane.AddCounters(nil, counts)
	for _, rs := range vs.Servers {
		if c := counts[rs.Index]; c.Conns != clients*each/3 || c.InPkts != 4*c.Conns || c.OutPkts != 4*c.Conns {
			t.Errorf("%v counted %+v, want %d connections of four packets each way", rs, c, clients*each/3)
		}
	}
	d.accounted()
}
