package conntrack

import (
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"uvs/packet"
	"uvs/service"
)

// filled returns a world with n established NAT connections of a family, and the bytes that all of it takes: slabs of entries and
// index, wheels and shards.
func filled(t testing.TB, family, n int) (w *world, rs *service.RealServer, bytes int) {
	w = newWorld(t, Config{})
	rs = w.server(t, families[family].server, service.Masq)
	var c Conn
	for i := range n {
		f := families[family].numbered(service.TCP, i)
		w.open(f, rs, &c)
		w.In(&f, packet.TCPAck, w.now, &c)
	}
	return w, rs, w.footprint()
}

// footprint is the memory of the table in bytes.
func (w *world) footprint() int {
	const shardBytes = wheelSlots*4 + 512 // the wheel's heads, and the rest of a shard
	n := w.Stats().Memory
	for _, shards := range [][]shard{w.conns, w.templates} {
		for i := range shards {
			s := &shards[i]
			if s.fresh == 0 {
				continue // one that was never used has no wheel
			}
			n += shardBytes + 8*(cap(s.slabs)+cap(s.buckets)+cap(s.over))
		}
	}
	return n
}

// cpu reports the processor time of a benchmark's loop, which other loads of the machine disturb less. The returned
// function is to be called behind the loop.
func cpu(b *testing.B) func() {
	used := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	begin := used()
	return func() { b.ReportMetric(float64(used()-begin)/float64(b.N), "cpu-ns/op") }
}

// sizes are the tables to measure: of few connections to many, of either family.
var sizes = func() (sizes []tableSize) {
	for i, family := range families {
		sizes = append(sizes, tableSize{family.name + "/1k", i, 1 << 10}, tableSize{family.name + "/64k", i, 1 << 16},
			tableSize{family.name + "/1M", i, 1 << 20})
	}
	return sizes
}()

type tableSize struct {
	name      string
	family, n int
}

// order is a random order of flows, so that the caches don't know what comes next.
func (size tableSize) order(n int) []packet.Flow {
	flows := make([]packet.Flow, n)
	for i, j := range rand.New(rand.NewPCG(5, 6)).Perm(n) {
		flows[i] = families[size.family].numbered(service.TCP, j)
	}
	return flows
}

func BenchmarkInEstablished(b *testing.B) {
	for _, size := range sizes {
		b.Run(size.name, func(b *testing.B) {
			w, _, _ := filled(b, size.family, size.n)
			flows := size.order(size.n)
			var c Conn
			i := 0
			b.ReportAllocs()
			defer cpu(b)()
			for b.Loop() {
				if w.In(&flows[i%size.n], packet.TCPAck, w.now, &c) != Hit {
					b.Fatal("miss")
				}
				i++
			}
		})
	}
}

func BenchmarkOutEstablished(b *testing.B) {
	for _, size := range sizes {
		b.Run(size.name, func(b *testing.B) {
			w, rs, _ := filled(b, size.family, size.n)
			flows := size.order(size.n)
			for i := range flows {
				flows[i] = answer(flows[i], rs)
			}
			var c Conn
			i := 0
			b.ReportAllocs()
			defer cpu(b)()
			for b.Loop() {
				if w.Out(&flows[i%size.n], packet.TCPAck, w.now, &c) != Hit {
					b.Fatal("miss")
				}
				i++
			}
		})
	}
}

// BenchmarkInEstablishedBatch looks up as a worker does: a batch of 32 is hashed and prefetched first.
func BenchmarkInEstablishedBatch(b *testing.B) {
	for _, size := range sizes {
		b.Run(size.name, func(b *testing.B) {
			w, _, _ := filled(b, size.family, size.n)
			flows := size.order(size.n)
			var c Conn
			var keys [32]Key
			i := 0
			b.ReportAllocs()
			defer cpu(b)()
			for b.Loop() {
				if i%len(keys) == 0 {
					for j := range keys {
						w.Hash(&flows[(i+j)%size.n], In, &keys[j])
					}
					w.Prefetch(keys[:])
				}
				if w.InHashed(&keys[i%len(keys)], packet.TCPAck, w.now, &c) != Hit {
					b.Fatal("miss")
				}
				i++
			}
		})
	}
}

func BenchmarkInMiss(b *testing.B) {
	for _, size := range sizes {
		b.Run(size.name, func(b *testing.B) {
			w, _, _ := filled(b, size.family, size.n)
			flows := size.order(size.n)
			for i := range flows {
				flows[i].DstPort = 81
			}
			var c Conn
			i := 0
			b.ReportAllocs()
			defer cpu(b)()
			for b.Loop() {
				if w.In(&flows[i%size.n], packet.TCPAck, w.now, &c) != Miss {
					b.Fatal("hit")
				}
				i++
			}
		})
	}
}

// BenchmarkInsert fills a table from empty to n connections, again and again.
func BenchmarkInsert(b *testing.B) {
	for _, size := range sizes {
		b.Run(size.name, func(b *testing.B) {
			flows := size.order(size.n)
			var w *world
			var rs *service.RealServer
			var c Conn
			i := size.n
			b.ReportAllocs()
			for b.Loop() {
				if i == size.n {
					b.StopTimer()
					w, i = newWorld(b, Config{}), 0
					rs = w.server(b, families[size.family].server, service.Masq)
					b.StartTimer()
				}
				if w.open(flows[i], rs, &c) != Inserted {
					b.Fatal("not inserted")
				}
				i++
			}
		})
	}
}

// BenchmarkTurnover is a connection's whole life at a constant number of connections: Insert, and Advance for another one.
func BenchmarkTurnover(b *testing.B) {
	for _, size := range sizes {
		b.Run(size.name, func(b *testing.B) {
			w, rs, _ := filled(b, size.family, 0)
			flows := size.order(2 * size.n)
			step := int64(time.Minute) / int64(size.n) // SYN_RECV lasts a minute
			var c Conn
			i := 0
			turn := func() {
				w.open(flows[i%len(flows)], rs, &c)
				w.now += step
				w.Advance(w.now, 64)
				i++
			}
			for range size.n * 5 / 4 {
				turn()
			}
			b.ReportAllocs()
			defer cpu(b)()
			for b.Loop() {
				turn()
			}
		})
	}
}

// BenchmarkExpire measures Advance alone, per connection that goes.
func BenchmarkExpire(b *testing.B) {
	for _, size := range sizes {
		b.Run(size.name, func(b *testing.B) {
			var gone, total time.Duration
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				b.StopTimer()
				w, rs, _ := filled(b, size.family, size.n)
				w.now += int64(20 * time.Minute)
				b.StartTimer()
				begin := time.Now()
				w.settle()
				gone += time.Since(begin)
				n += size.n
				if rs.Refs() != 0 {
					b.Fatal("not all gone")
				}
			}
			total = gone
			b.ReportMetric(float64(total.Nanoseconds())/float64(n), "ns/conn")
		})
	}
}

// BenchmarkGrowth reports what a table of n connections costs, and how long single operations took while it grew.
func BenchmarkGrowth(b *testing.B) {
	for _, size := range []tableSize{
		{"ipv4/1M", 0, 1 << 20}, {"ipv4/10M", 0, 10_000_000}, {"ipv6/1M", 1, 1 << 20}, {"ipv6/10M", 1, 10_000_000},
	} {
		b.Run(size.name, func(b *testing.B) {
			for b.Loop() {
				w := newWorld(b, Config{})
				rs := w.server(b, families[size.family].server, service.Masq)
				var c Conn
				var longest time.Duration
				var slow int
				for i := range size.n {
					f := families[size.family].numbered(service.TCP, i)
					begin := time.Now()
					w.open(f, rs, &c)
					took := time.Since(begin)
					longest = max(longest, took)
					if took > 50*time.Microsecond {
						slow++
					}
				}
				b.ReportMetric(float64(w.footprint())/float64(size.n), "B/conn")
				b.ReportMetric(float64(longest.Microseconds()), "longest-µs")
				b.ReportMetric(float64(slow), "over-50µs")
			}
		})
	}
}
