package conntrack

import (
	"sync"
	"time"

	"uvs/service"
)

// defence is the state of drop_entry.
type defence struct {
	mu sync.Mutex // DropRandom is one at a time
	// wait counts, for entries with so many packets, those passed over until one goes; guarded by mu.
	wait [maxDropPackets + 1]int
}

const (
	// maxDropPackets is the most packets of an entry that may go for its idleness.
	maxDropPackets = 8
	// dropShare is the part of the table that one call looks at, dropRun how many neighbours it looks at together.
	dropShare = 32
	dropRun   = 8
)

// dropIdle is how long an entry must have been idle to go for it.
var dropIdle = timeoutTicks(time.Minute)

// DropRandom does what the defence drop_entry does every second (ip_vs_conn.c, ip_vs_random_dropentry): it looks at a
// random thirty-second of the table and drops the connections that are not yet established, of those idle for a minute
// with no more than eight packets from the client every n-th that has n, and templates that none was ever established
// under. random returns a number below n. It returns how many went.
func (t *Table) DropRandom(now int64, random func(n uint32) uint32) (dropped int) {
	d := &t.defence
	d.mu.Lock()
	defer d.mu.Unlock()
	r, tick := t.rules.Load(), tickOf(now)
	for _, shards := range [...][]shard{t.conns, t.templates} {
		for i := range shards {
			s := &shards[i]
			s.lock()
			slots := max(s.fresh/s.stride, 1) - 1
			s.unlock()
			runs := slots / (dropShare * dropRun)
			if random(dropShare*dropRun) < slots%(dropShare*dropRun) {
				runs++
			}
			for range runs {
				first := 1 + random(slots)
				s.lock()
				for slot := first; slot < first+dropRun; slot++ {
					// Behind the last slot it goes on with the first.
					at := (1 + (slot-1)%slots) * s.stride
					if e := s.at(at); e != nil && d.chooses(r, e, tick) {
						t.drop(s, at, e, true)
						dropped++
					}
				}
				s.unlock()
			}
		}
	}
	return dropped
}

// chooses says that e is to go.
func (d *defence) chooses(r *rules, e *entry, tick uint32) bool {
	if e.expired(tick) {
		return false // goes by itself, or stays for its connections
	}
	if e.flags()&Template != 0 {
		switch {
		case e.children() > 0:
			return false
		case e.packets() > 0: // of one-packet connections, which nothing else counts
			return d.idle(e, e.timeout(), tick)
		}
		return e.state() != TemplateAssured
	}
	if p := service.Proto(e.proto()); p == service.TCP || p == service.SCTP {
		switch e.state() {
		case SynRecv, SynAck, SCTPInit1, SCTPInit:
			return true
		case Established, SCTPEstablished:
		default:
			return false
		}
	}
	return d.idle(e, r.ticks[e.state()], tick)
}

// idle says that e is to go for its idleness (todrop_entry). Of entries with n packets it chooses every n-th.
func (d *defence) idle(e *entry, timeout, tick uint32) bool {
	n := e.packets()
	if int32(tick+timeout-e.deadline()) < int32(dropIdle) || n == 0 || n > maxDropPackets {
		return false
	}
	if d.wait[n]--; d.wait[n] > 0 {
		return false
	}
	d.wait[n] = int(n)
	return true
}
