package replay

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/google/gopacket/layers"
)

// FuzzReplay feeds anything to the readers: they end, and count no more than there is.
func FuzzReplay(f *testing.F) {
	list := traffic(f, 4, false)
	clean, ng := pcapOf(f, list, 65535, layers.LinkTypeEthernet, whole), pcapngOf(f, list)
	f.Add(clean)                                                          // pcap of 4 connections
	f.Add(pcapOf(f, traffic(f, 2, true), 90, layers.LinkTypeRaw, bare())) // raw IPv6, cut
	f.Add(pcapOf(f, traffic(f, 2, false, 3), 70, layers.LinkTypeEthernet, whole))
	f.Add(ng)          // pcapng: a section, an interface, packets, statistics
	f.Add(clean[:100]) // cut within a record
	f.Add(ng[8:])      // begins within a block
	f.Add([]byte("time,client,duration\n1,10.0.0.1,2\n1.5,10.0.0.2,0.1\nx,y,z\n"))
	f.Add([]byte("time,event,id,client\n1,open,1,10.0.0.1\n1,active,1,\n1,open,1,10.0.0.1\n2,close,1,\n3,close,1,\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c := config("rr", "wlc", "sh", "lblcr")
		c.Flows = 64
		c.Anonymise, c.Key = io.Discard, []byte{1}
		o, err := Run(context.Background(), bytes.NewReader(b), c)
		if o == nil {
			return
		}
		if o.Stats.Packets > uint64(len(b)) || o.Stats.Opened > o.Stats.Packets || o.Stats.MostHeld > 64 {
			t.Errorf("%+v of %d bytes, %v", o.Stats, len(b), err)
		}
		for _, f := range o.Figures {
			var conns uint64
			for _, s := range f.Servers {
				conns += s.Conns
				if s.Active < 0 || s.Inactive < 0 || s.Active+s.Inactive > 64 {
					t.Errorf("%s: %+v", f.Scheduler, s)
				}
			}
			if conns+f.Misses != f.Offered {
				t.Errorf("%s: %d connections and %d misses of %d", f.Scheduler, conns, f.Misses, f.Offered)
			}
		}
	})
}

// endless is a capture that never repeats a connection, made as it is read.
type endless struct {
	left   int
	record []byte
	rest   []byte
	n      uint32
}

func newEndless(tb testing.TB, size int) *endless {
	syn := traffic(tb, 1, false)[0].bytes
	record := make([]byte, recordHead, recordHead+len(syn))
	binary.LittleEndian.PutUint32(record[8:], uint32(len(syn)))
	binary.LittleEndian.PutUint32(record[12:], uint32(len(syn)))
	e := &endless{left: size, record: append(record, syn...)}
	e.rest = pcapOf(tb, nil, 65535, layers.LinkTypeEthernet, whole)
	return e
}

// Read makes 100,000 packets a second of the capture's time, each the SYN of another client.
func (e *endless) Read(b []byte) (n int, err error) {
	for n < len(b) {
		if len(e.rest) == 0 {
			if e.left <= 0 {
				return n, io.EOF
			}
			e.n++
			binary.LittleEndian.PutUint32(e.record, 1_700_000_000+e.n/100_000)
			binary.LittleEndian.PutUint32(e.record[4:], e.n%100_000*10)
			ip := e.record[recordHead+14:]
			binary.BigEndian.PutUint32(ip[12:], 0x0a000000|e.n*2654435761>>8)
			binary.BigEndian.PutUint16(ip[20:], uint16(e.n))
			ip[10], ip[11] = 0, 0
			sum := uint32(0)
			for i := 0; i < 20; i += 2 {
				sum += uint32(binary.BigEndian.Uint16(ip[i:]))
			}
			for sum>>16 != 0 {
				sum = sum&0xffff + sum>>16
			}
			binary.BigEndian.PutUint16(ip[10:], ^uint16(sum))
			e.rest = e.record
		}
		k := copy(b[n:], e.rest)
		e.rest = e.rest[k:]
		n += k
		e.left -= k
	}
	return n, nil
}

// A capture of any length takes the same memory: that of the connections followed.
func TestMemoryDoesntGrowWithTheCapture(t *testing.T) {
	measure := func(size int) (grown uint64, o *Outcome) {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		c := config("rr", "wlc")
		c.Flows = 1 << 12
		o, err := Run(t.Context(), newEndless(t, size), c)
		if err != nil {
			t.Fatal(err)
		}
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc, o
	}
	small, _ := measure(2 << 20)
	large, o := measure(20 << 20)
	if large > small+1<<20 {
		t.Errorf("20 MB allocated %d bytes in all, 2 MB %d", large, small)
	}
	if o.Stats.Packets < 200_000 || o.Stats.MostHeld > 1<<12 || o.Stats.Unheld == 0 || o.Stats.Shift == 0 {
		t.Errorf("%+v", o.Stats)
	}
}

func BenchmarkReplay(b *testing.B) {
	c := config("wlc")
	size := 64 << 20
	b.SetBytes(int64(size))
	for b.Loop() {
		o, err := Run(b.Context(), newEndless(b, size), c)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(o.Stats.Packets)/o.Stats.Took.Seconds(), "packets/s")
	}
}

// TestCommittedRecordings replays what lies in testdata: a capture with faults of all kinds, and the trace that was made of it.
func TestCommittedRecordings(t *testing.T) {
	if os.Getenv("UVS_UPDATE") != "" {
		writeTestdata(t)
	}
	want, err := os.ReadFile("testdata/mixed.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"mixed.pcap", "mixed.csv"} {
		in, err := os.Open("testdata/" + name)
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		o, err := Run(t.Context(), in, config("rr", "wlc", "sed", "fo"))
		if err != nil {
			t.Fatal(err)
		}
		o.Stats.Packets, o.Stats.Kind = 0, "" // the trace has less of them
		o.Stats.Skipped, o.Stats.Midway, o.Stats.Corrupt, o.Stats.Cut = [numSkips]uint64{}, 0, 0, false
		for i := range o.Figures {
			o.Figures[i].Returning, o.Figures[i].Moved = 0, 0 // by chance another two clients share a place
		}
		var b bytes.Buffer
		if err := o.Text(&b); err != nil {
			t.Fatal(err)
		}
		if os.Getenv("UVS_UPDATE") != "" {
			if err := os.WriteFile("testdata/mixed.txt", b.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
			want = b.Bytes()
		}
		if !bytes.Equal(b.Bytes(), want) {
			t.Errorf("%s:\n%s\nwant\n%s", name, &b, want)
		}
	}
}

// writeTestdata makes the committed recordings anew.
func writeTestdata(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	var list []recorded
	for i, p := range append(traffic(t, 30, false), traffic(t, 20, true)...) {
		p.at = time.Duration(i) * 15 * time.Millisecond
		switch random.IntN(40) {
		case 0:
			p.bytes = p.bytes[:20]
		case 1:
			p.bytes[12] = 0x88 // another protocol
		case 2:
			p.bytes[14] ^= 0x20 // another version
		}
		list = append(list, p)
	}
	b := pcapOf(t, list, 96, layers.LinkTypeEthernet, whole)
	at := len(b) / 3
	b = append(append(bytes.Clone(b[:at]), bytes.Repeat([]byte{0xff}, 77)...), b[at:]...)
	b = b[:len(b)-5]
	var trace bytes.Buffer
	c := config("rr")
	c.Anonymise, c.Key = &trace, []byte("testdata")
	run(t, b, c)
	for name, content := range map[string][]byte{"mixed.pcap": b, "mixed.csv": trace.Bytes()} {
		if err := os.WriteFile("testdata/"+name, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
