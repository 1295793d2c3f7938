package dataplane

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"uvs/conntrack"
	"uvs/dataplane/link"
	"uvs/packet"
)

const (
	expireBudget = 256                    // entries that one batch looks at for expiry
	idleWait     = 250 * time.Millisecond // an idle worker turns its timing wheels this often
)

// worker is one receiving thread with its links.
type worker struct {
	path
	id     int
	rx     []link.Link
	poller *link.Poller
	retry  atomic.Bool // the resolver has news: held packets may have become sendable, an interface be back
	frames [batchSize]link.Frame
	staged [batchSize]staged
	keys   [batchSize]conntrack.Key // of staged
}

func newWorker(p *Plane, id int) (*worker, error) {
	open := func(i int) (link.Link, error) { return p.cfg.OpenRx(id, i) }
	links, err := openLinks(len(p.cfg.Ports), open, p.cfg.Ports)
	if err != nil {
		return nil, err
	}
	poller, err := link.NewPoller(slices.Clone(links)...)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("prepare worker %d: %w", id, err), closeLinks(links))
	}
	w := &worker{id: id, rx: slices.Clone(links), poller: poller}
	w.path.init(p, links)
	w.attach, w.replaced = open, func(i int) {
		w.rx[i] = w.tx[i]
		w.poller.Replace(i, w.tx[i])
	}
	return w, nil
}

func (w *worker) close() error {
	return errors.Join(closeLinks(w.rx), w.poller.Close())
}

// run is the worker's thread.
func (w *worker) run(ctx context.Context) error {
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine, its CPU mask with it
	if w.plane.cfg.Pin {
		var set unix.CPUSet
		set.Set(w.id % runtime.NumCPU())
		if err := unix.SchedSetaffinity(0, &set); err != nil {
			return fmt.Errorf("pin worker %d to CPU %d: %w", w.id, w.id%runtime.NumCPU(), err)
		}
	}
	stop := context.AfterFunc(ctx, w.poller.Wake)
	defer stop()
	wait := idleWait
	if w.plane.cfg.BusyPoll {
		wait = 0
	}
	for ctx.Err() == nil {
		if w.step(BootTime()) {
			continue
		}
		w.poller.Wait(wait)
		for i := range w.rx {
			if w.poller.Err(i) != nil {
				w.lookSoon()
			}
		}
	}
	return nil
}

// step takes one batch from every link, without blocking, and says whether there was anything.
func (w *worker) step(now int64) (busy bool) {
	news := w.retry.Swap(false)
	if news {
		w.lookSoon()
		if i := w.plane.cfg.stackPort(); i >= 0 {
			w.poller.Replace(i, w.rx[i]) // its descriptor may be there now
		}
	}
	w.watchLinks(now)
	if news && len(w.held) > 0 || w.heldDue(now) {
		w.mu.Lock()
		w.begin(now)
		w.retryHeld()
		w.mu.Unlock()
		w.flush()
	}
	for i, l := range w.rx {
		w.mu.Lock() // over begin and Recv: see Plane.Publish
		w.begin(now)
		n := l.Recv(w.frames[:])
		if n > 0 {
			busy = true
			w.batch(&w.ports[i], w.frames[:n])
		}
		w.mu.Unlock()
		if n > 0 {
			w.flush()
			l.Release()
		}
	}
	// What is due and not yet expired is work as well: an idle worker would take hours for a million connections.
	return w.plane.cfg.Conns.Advance(now, expireBudget) || busy
}

// batch brings frames that arrived on q to their verdicts. All of them are decoded and hashed before the first is looked up,
// so that their connections come into the processor's caches together: among a million that is most of a packet's price.
func (w *worker) batch(q *port, frames []link.Frame) {
	if w.tap != nil {
		w.tapBatch(q, frames)
		return
	}
	conns, dir := w.plane.cfg.Conns, conntrack.In
	if q.inside {
		dir = conntrack.Out
	}
	w.received += uint64(len(frames))
	w.pkt = &w.decoded // a staged one of the last batch is about to be overwritten
	n := 0
	for i := range frames {
		f, s := &frames[i], &w.staged[n]
		w.bytes += uint64(len(f.Buf) - packet.VnetLen)
		v, whole := w.admit(q, f, &s.pkt)
		switch {
		case whole:
			conns.Hash(&s.pkt.Flow, dir, &w.keys[n])
			s.frame = f
			n++
		case v != verdictNone:
			w.verdicts[v]++
		}
	}
	conns.Prefetch(w.keys[:n])
	probing := w.probing() // since before any answer in this batch came
	for i := range n {
		s := &w.staged[i]
		w.pkt = &s.pkt
		var v Verdict
		if probing {
			v = w.receive(q, s.frame, &w.keys[i])
		} else {
			v = w.ip(q, s.frame, &w.keys[i])
		}
		if v != verdictNone {
			w.verdicts[v]++
		}
	}
}

// staged is a packet between the first look at it and its lookup.
type staged struct {
	frame *link.Frame
	pkt   packet.Packet
}

// admit decodes a frame that arrived on q into p. whole says that it is an IP packet addressed to us, no fragment; else v is
// its verdict, verdictNone if it was set aside.
func (w *worker) admit(q *port, f *link.Frame, p *packet.Packet) (v Verdict, whole bool) {
	frame := f.Eth()
	eth, _, ok := packet.ParseEth(frame)
	switch {
	case f.Truncated:
		return DropTruncated, false
	case !ok:
		return DropShort, false
	case eth.Dst() != q.mac:
		return w.notToUs(q, f, eth, p), false
	case f.Tagged && f.VLAN&0xfff != 0:
		return PassVLAN, false
	case eth.Type() == packet.EtherARP:
		return w.plane.slow.offer(q.index, f), false
	}
	if fault := q.decode(frame, p); fault != packet.NoFault {
		if t := eth.Type(); t == packet.EtherVLAN || t == packet.EtherQinQ {
			return PassVLAN, false // a tag within another: the kernel took the outer one out
		}
		return faultVerdict[fault], false
	}
	if p.Fragment {
		return w.plane.slow.offer(q.index, f), false
	}
	if p.IsNeighbourDiscovery() {
		return w.discovery(q, f, p), false
	}
	if v := f.Vnet(); v.NeedsCsum() && !checksumInside(v, p) {
		return DropOffload, false
	}
	return verdictNone, true
}

// checksumInside says that the checksum that the virtio-net header asks for is one behind p's IP header. A guest behind a
// tap writes that header: completing what it says could overwrite the very lengths that Decode has checked.
func checksumInside(v *packet.Vnet, p *packet.Packet) bool {
	return v.CsumStart() >= p.L4 && v.CsumStart()+v.CsumOffset()+2 <= len(p.Frame)
}

// notToUs deals with frames to other MACs: of those to a group, ARP and neighbour discovery alone matter. p is scratch.
func (w *worker) notToUs(q *port, f *link.Frame, eth *packet.Eth, p *packet.Packet) Verdict {
	switch {
	case !eth.Dst().IsGroup():
		if f.Type == unix.PACKET_HOST {
			if w.probing() && w.astray(q, f) {
				return AnsweredProbe
			}
			return w.toHost(f)
		}
		return PassForeignMAC
	case f.Tagged && f.VLAN&0xfff != 0:
		return PassVLAN
	case eth.Type() == packet.EtherARP:
		return w.plane.slow.offer(q.index, f)
	case eth.Type() == packet.EtherIPv6 && packet.Decode(f.Eth(), p) == packet.NoFault && p.IsNeighbourDiscovery():
		return w.discovery(q, f, p)
	default:
		return PassGroup
	}
}

// discovery hands the slow path what it is to look at of neighbour discovery. Routers' advertisements and redirects are the
// host's business, which tells the resolver of the routes it makes of them.
func (w *worker) discovery(q *port, f *link.Frame, p *packet.Packet) Verdict {
	if q.host {
		return PassNDP // nobody is there to be found
	}
	switch p.ICMP().Type() {
	case packet.ICMP6NeighbourSolicit, packet.ICMP6NeighbourAdvert, packet.ICMP6ListenerQuery:
		return w.plane.slow.offer(q.index, f)
	}
	return PassNDP
}

// BootTime is CLOCK_BOOTTIME in nanoseconds, on which all deadlines of the packet path are.
func BootTime() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic("CLOCK_BOOTTIME: " + err.Error()) // Linux has had it since 2.6.39
	}
	return ts.Nano()
}
