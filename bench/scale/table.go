package scale

import (
	"context"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"uvs/conntrack"
	"uvs/dataplane"
	"uvs/packet"
	"uvs/service"
)

// Table prints what the connection table costs with each number of entries in sizes. When ctx ends it ends before the next.
func Table(ctx context.Context, out io.Writer, sizes []int) error {
	for _, n := range sizes {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := table(out, n); err != nil {
			return err
		}
	}
	return nil
}

// prime is no factor of any size: counting by it visits every connection in an order that no cache foresees.
const prime = 7_368_787

func table(out io.Writer, n int) error {
	print := func(what string, value any, unit string) {
		fmt.Fprintf(out, "table/%d\t%s\t%v\t%s\n", n, what, value, unit)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before := resident()
	servers := new(service.ServerIndex)
	t, err := conntrack.New(conntrack.Config{Servers: servers, Alloc: dataplane.TableMemory})
	if err != nil {
		return err
	}
	k := service.Key{Proto: service.TCP}
	rs := service.NewRealServer(k, netipAddrPort(rip(0)), service.Masq, 1)
	if err := servers.Add(rs); err != nil {
		return err
	}
	now := dataplane.BootTime()
	supplied := make(chan struct{})
	defer close(supplied)
	go supply(t, supplied)

	growth := new(stopwatch)
	for i := range n {
		begin := used()
		if err := insert(t, rs, i, now); err != nil {
			return err
		}
		growth.end(begin)
	}
	idle, mixed := new(stopwatch), uint64(0)
	for i := range n {
		begin := used()
		mixed += mixUp(i)
		idle.end(begin)
	}
	runtime.KeepAlive(mixed)
	runtime.GC()
	if n >= 100_000 {
		print("resident", fmt.Sprintf("%.1f", float64(resident()-before)/float64(n)), "B/conn")
	}
	print("insert", growth.mean()-idle.mean(), "")
	print("insert, slowest", growth.worst(), "")
	print("no-op, mean", idle.mean(), "")
	print("no-op, slowest", idle.worst(), "")

	var gc, pause []time.Duration
	for range 5 {
		begin := time.Now()
		runtime.GC()
		gc = append(gc, time.Since(begin))
		var s debug.GCStats
		debug.ReadGCStats(&s)
		pause = append(pause, s.Pause[0])
	}
	print("GC cycle, forced, least and most of 5", fmt.Sprint(slices.Min(gc), slices.Max(gc)), "")
	print("  of it the world stopped", fmt.Sprint(slices.Min(pause), slices.Max(pause)), "")

	print("lookup in batches", least(5, func() time.Duration { return lookups(t, n, now, rs) }), "")
	print("listing", least(3, func() time.Duration {
		begin, listed := used(), 0
		t.Walk(now, func(*conntrack.Conn) bool { listed++; return true })
		if listed != n {
			print("listed only", listed, "connections")
		}
		return (used() - begin) / time.Duration(n)
	}), "")

	// A flood ends: all are due at once. Workers do expireBudget with each batch.
	now += int64(3 * time.Minute)
	expiry := new(stopwatch)
	for more := true; more; {
		at := used()
		more = t.Advance(now, 256)
		expiry.end(at)
	}
	print("expiry", (expiry.total-time.Duration(expiry.n)*idle.mean())/time.Duration(n), "")
	print("tick of 256 entries, mean", expiry.mean(), "")
	print("tick of 256 entries, slowest", expiry.worst(), "")
	if left := rs.Refs(); left != 0 {
		return fmt.Errorf("%d connections are left after expiry", left)
	}
	return nil
}

// supply gets a table memory before it is needed, as dataplane does.
func supply(t *conntrack.Table, end <-chan struct{}) {
	for low := t.LowMemory(); ; {
		select {
		case <-end:
			return
		case <-low:
			t.Refill(dataplane.BootTime())
		}
	}
}

// lookups is what one of many lookups takes, done as a worker does: a batch is hashed and fetched first.
func lookups(t *conntrack.Table, n int, now int64, rs *service.RealServer) time.Duration {
	const rounds = 2000
	var keys [batch]conntrack.Key
	var flows [batch]packet.Flow
	var c conntrack.Conn
	var took time.Duration
	for r := range rounds {
		for i := range flows {
			flows[i] = flow((r*batch + i) * prime % n)
		}
		begin := used()
		for i := range keys {
			t.Hash(&flows[i], conntrack.In, &keys[i])
		}
		t.Prefetch(keys[:])
		for i := range keys {
			if t.InHashed(&keys[i], packet.TCPSyn, now, &c) != conntrack.Hit {
				panic("scale: a connection is lost")
			}
		}
		took += used() - begin
	}
	return took / (rounds * batch)
}

// stopwatch times operations one by one, by the processor time of the calling thread, which must be locked: on a machine that
// others use, the longest times by the clock are theirs.
type stopwatch struct {
	n     int
	total time.Duration
	tail  []time.Duration // the longest, longest first
}

// used is the processor time that the calling thread has had.
func used() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		panic("scale: " + err.Error()) // every Linux has this clock
	}
	return time.Duration(ts.Nano())
}

func (s *stopwatch) end(begin time.Duration) { s.note(used() - begin) }

func (s *stopwatch) note(took time.Duration) {
	s.n++
	s.total += took
	const kept = 64
	if len(s.tail) < kept || took > s.tail[kept-1] {
		if len(s.tail) == kept {
			s.tail = s.tail[:kept-1]
		}
		i, _ := slices.BinarySearchFunc(s.tail, took, func(a, b time.Duration) int { return int(b - a) })
		s.tail = slices.Insert(s.tail, i, took)
	}
}

func (s *stopwatch) mean() time.Duration { return s.total / time.Duration(max(s.n, 1)) }

// worst is the longest, the 10th and the 64th longest time: interrupts, too, have their share in the very longest.
func (s *stopwatch) worst() string {
	at := func(i int) time.Duration {
		if i < len(s.tail) {
			return s.tail[i]
		}
		return 0
	}
	return fmt.Sprintf("%v, 10th %v, 64th %v", at(0), at(9), at(63))
}

// mixUp is something to do for the stopwatch's control.
//
//go:noinline
func mixUp(i int) uint64 { return uint64(i) * 0x9e3779b97f4a7c15 >> 7 }

// least is the least of several runs: what the machine gives when nobody disturbs.
func least(times int, f func() time.Duration) time.Duration {
	best := f()
	for range times - 1 {
		best = min(best, f())
	}
	return best
}

// resident is the memory of this process in bytes, without what the runtime keeps for later.
func resident() int {
	debug.FreeOSMemory()
	return residentNow()
}

func residentNow() int {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(status)) {
		var kb int
		if n, _ := fmt.Sscanf(line, "VmRSS: %d kB", &kb); n == 1 {
			return kb << 10
		}
	}
	return 0
}

// quantiles is the distribution of times in words.
func quantiles(times []time.Duration) string {
	sorted := slices.Sorted(slices.Values(times))
	if len(sorted) == 0 {
		return "nothing"
	}
	at := func(q float64) time.Duration { return sorted[int(q*float64(len(sorted)-1))] }
	return fmt.Sprintf("p50 %v, p99 %v, p99.9 %v, most %v", at(0.5), at(0.99), at(0.999), at(1))
}
