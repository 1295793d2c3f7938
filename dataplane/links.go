package dataplane

import (
	"errors"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"uvs/dataplane/link"
	"uvs/packet"
)

const (
	linkLook     = time.Second            // links are asked how they are this often,
	linkLookSoon = 100 * time.Millisecond // and no more often than this when there is news
	linkPatience = 5                      // failures to attach to an interface that came back before that is said
)

// leg is what a path knows of a port's link beside the link itself.
type leg struct {
	down     bool // the interface is, or is gone, or has no carrier
	gone     bool // a noLink stands in for the link
	failures int
	past     link.Stats // of the links before this one; guarded by ledger.mu
}

// watchLinks looks from time to time whether the interfaces are still there. An AF_PACKET socket never recovers from its
// interface's disappearance, so a new link is opened when one of that name is back. It is called between batches: what
// came in by the links is sent and released.
func (w *path) watchLinks(now int64) {
	if now < w.lookAt {
		return
	}
	w.looked, w.lookAt = now, now+int64(linkLook)
	for i := range w.legs {
		if w.legs[i].gone {
			w.reopen(i)
		} else if l, ok := w.tx[i].(interface{ Err() error }); ok {
			w.judge(i, l.Err())
		}
	}
}

// followMAC takes over the address that the interface of a link has, where it is ours too, and says whether it is new.
func (w *path) followMAC(i int) bool {
	in, ok := w.tx[i].(interface{ Info() link.Info })
	if !ok || !w.plane.cfg.Ports[i].FollowMAC {
		return false
	}
	mac := packet.MAC(in.Info().MAC)
	if mac == w.ports[i].mac {
		return false
	}
	w.ports[i].mac = mac
	return true
}

// lookSoon makes watchLinks look before its time.
func (w *path) lookSoon() { w.lookAt = min(w.lookAt, w.looked+int64(linkLookSoon)) }

// judge acts on what a link said of itself. The resolver logs what becomes of interfaces.
func (w *path) judge(i int, err error) {
	leg := &w.legs[i]
	switch {
	case err == nil:
		if w.followMAC(i) || leg.down { // everybody has to learn that address
			leg.down = false
			notify(w.cameUp, i)
		}
	case errors.Is(err, link.ErrGone):
		leg.down, leg.gone, leg.failures = true, true, 0
		w.replace(i, new(noLink))
	default:
		leg.down = true
	}
}

// reopen attaches to the interface again if it is back.
func (w *path) reopen(i int) {
	leg, c := &w.legs[i], &w.plane.cfg.Ports[i]
	l, err := w.attach(i)
	if err != nil {
		// With several workers it fails until all have let go of the old links: they are one fanout group.
		if leg.failures++; leg.failures == linkPatience && !errors.Is(err, link.ErrNoInterface) && !errors.Is(err, link.ErrDown) {
			w.plane.cfg.Log.Warn("cannot attach to the interface that came back; trying again", zap.String("interface", c.Name), zap.Error(err))
		}
		return
	}
	leg.down, leg.gone = false, false
	w.replace(i, l)
	w.followMAC(i)
	notify(w.cameUp, i)
}

// replace closes a port's link and puts another in its place.
func (w *path) replace(i int, l link.Link) {
	old := w.tx[i]
	if err := old.Close(); err != nil {
		w.plane.cfg.Log.Debug("close the link on an interface that is gone", zap.Error(err))
	}
	w.mu.Lock()
	w.legs[i].past.Add(old.Stats())
	w.tx[i], w.send[i] = l, l.Send
	w.mu.Unlock()
	notify(w.replaced, i)
}

func notify(of func(port int), port int) {
	if of != nil {
		of(port)
	}
}

// noLink stands in for the link on an interface that is gone.
type noLink struct{ refused atomic.Uint64 }

var _ link.Link = (*noLink)(nil)

// Recv implements link.Link: nothing comes.
func (*noLink) Recv([]link.Frame) int { return 0 }

// Release implements link.Link.
func (*noLink) Release() {}

// Send implements link.Link: what cannot be sent is counted.
func (n *noLink) Send(_, _ []byte) { n.refused.Add(1) }

// Flush implements link.Link.
func (*noLink) Flush() {}

// FD implements link.Link: there is nothing to poll.
func (*noLink) FD() int { return -1 }

// Stats implements link.Link.
func (n *noLink) Stats() link.Stats { return link.Stats{TxError: n.refused.Load()} }

// Close implements link.Link.
func (*noLink) Close() error { return nil }
