package decap

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"go.uber.org/zap"

	"uvs/dataplane/fragment"
	"uvs/dataplane/tun"
	"uvs/packet"
)

// worker is the packet path of one IP family's tunnels, in one goroutine.
type worker struct {
	rules   *Rules
	host    *host
	device  io.Writer
	notices notices
	now     time.Time // read once per batch

	// The kernel puts IPv4's fragments together, but not IPv6's.
	gather *fragment.Gatherer // nil in IPv4
	began  time.Time
	piece  []byte // scratch

	mu    sync.Mutex // held for a batch, or to read
	stats Stats
}

// run takes batch after batch until ctx ends.
func (w *worker) run(ctx context.Context, t *tap) error {
	for {
		var unreadable uint64
		n, err := t.wait(&unreadable)
		if err != nil {
			if ctx.Err() != nil && errors.Is(err, os.ErrDeadlineExceeded) {
				return nil
			}
			return err
		}
		w.now = time.Now()
		w.mu.Lock()
		w.stats.Unreadable += unreadable
		for i := 0; i < n && err == nil; i++ {
			err = w.handle(t.frame(i))
		}
		w.mu.Unlock()
		if err != nil {
			return err
		}
	}
}

// handle brings one frame to its end, and counts it. An error means that it makes no sense to go on.
func (w *worker) handle(r received) error {
	verdict, err := w.take(r)
	w.stats.Received++
	if verdict == DropFragment && w.gather != nil {
		verdict, err = w.takeFragment(r)
	}
	w.stats.Verdicts[verdict]++
	return err
}

// takeFragment adds a director's fragment to its datagram, and takes that if it is whole. The fragments before stay counted as
// gathered, unless they are given up.
func (w *worker) takeFragment(r received) (Verdict, error) {
	ip := r.buf[packet.VnetLen+r.l3:]
	w.piece = append(append(w.piece[:0], make([]byte, packet.EthLen)...), ip...)
	packet.PutEth(w.piece, packet.MAC{}, packet.MAC{}, packet.EtherIPv6)
	d, discarded := w.gather.Add(w.piece, int64(w.now.Sub(w.began)))
	w.stats.Verdicts[Gathered] -= uint64(discarded) // perhaps this one too, which is counted in a moment
	w.stats.Verdicts[DropFragment] += uint64(discarded)
	if d == nil {
		return Gathered, nil
	}
	return w.take(received{buf: d.Buf(), l3: packet.EthLen, ifindex: r.ifindex})
}

func (w *worker) take(r received) (Verdict, error) {
	if r.truncated {
		return DropTruncated, nil
	}
	if w.host.only != "" && int64(r.ifindex) != w.host.ifindex.Load() {
		return PassInterface, nil
	}
	vnet, frame := *(*packet.Vnet)(r.buf), r.buf[packet.VnetLen:]
	start, end, verdict := w.rules.Open(frame, r.l3, &vnet, *w.host.local.Load())
	if verdict != Delivered {
		w.explain(verdict, frame, r.l3)
		return verdict, nil
	}
	// The device wants the header in front of the packet: it is written over the end of the outer IP header.
	out := r.buf[start : packet.VnetLen+end]
	copy(out, vnet[:])
	if _, err := w.device.Write(out); err != nil {
		if errors.Is(err, tun.ErrGone) {
			return DropDevice, err
		}
		if w.notices.due(w.now, DropDevice) {
			w.notices.tell(DropDevice, "the TUN device refused a packet", zap.Error(err))
		}
		return DropDevice, nil
	}
	w.stats.Bytes += uint64(end - start)
	if vnet.GSOType() != packet.GSONone {
		w.stats.SuperFrames++
	}
	return Delivered, nil
}

// explanations are of refusals behind which there is probably a mistake in somebody's configuration.
var explanations = [numVerdicts]string{
	DropChecksum: "refused a tunnelled packet: the checksum of its GRE or UDP header is wrong",
	DropDirector: "refused a tunnelled packet: it comes from no allowed director",
	DropNotVIP:   "refused a tunnelled packet: it is for no virtual address of this server",
	DropSource:   "refused a tunnelled packet: its source cannot be a client's",
}

// explain tells of a refused packet where that may help.
func (w *worker) explain(v Verdict, frame []byte, l3 int) {
	if explanations[v] == "" || !w.notices.due(w.now, v) {
		return
	}
	outer, _ := parseOuter(frame[l3:]) // was accepted before
	fields := []zap.Field{zap.Stringer("tunnel-from", outer.src)}
	var none packet.Vnet
	if in, verdict := w.rules.unwrap(&outer, &none); verdict == Delivered {
		if inner, ok := parseOuter(outer.payload[in.at:]); ok {
			fields = append(fields, zap.Stringer("source", inner.src), zap.Stringer("destination", inner.dst))
		}
	}
	w.notices.tell(v, explanations[v], fields...)
}
