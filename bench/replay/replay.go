package replay

import (
	"bufio"
	"cmp"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"uvs/packet"
	"uvs/sched"
	"uvs/sched/trial"
	"uvs/service"
)

// Config says what to replay. Zero fields take the defaults named.
type Config struct {
	// Services are the traffic that is balanced; default all that is opened in the recording.
	Services []Service
	// Servers are the real servers, in the order in which they are added.
	Servers []trial.Server
	// Changes happen to the servers while the recording runs; they are put in order.
	Changes []Change
	// Schedulers are those that are compared, as trial.Parse reads them; default all.
	Schedulers []string
	// Clients is how many clients are remembered, to tell which were moved: see trial.Config.
	Clients int
	// Flows is how many connections are followed at a time; default 262,144, up to 200 MB.
	Flows int
	// TCPTimeout, FINTimeout and UDPTimeout are those of connections that nothing is heard of; default ipvsadm's.
	TCPTimeout, FINTimeout, UDPTimeout time.Duration
	// Anonymise gets a trace of the recording with other addresses, made with Key. nil: none.
	Anonymise io.Writer
	Key       []byte
	// Progress is told now and then how many bytes were read, and of what part of the recording they are. nil: nobody.
	Progress func(bytes int64)

	read *counted
}

// Service is traffic that is balanced.
type Service struct {
	Proto service.Proto // 0: any
	Net   netip.Prefix  // of the virtual addresses
	Port  uint16        // 0: any
}

// ParseService reads [PROTOCOL:]ADDRESS[/BITS][:PORT], such as "tcp:192.0.2.100:80", "192.0.2.0/24" or "[2001:db8::1]:443".
func ParseService(s string) (v Service, err error) {
	text := s
	for name, proto := range map[string]service.Proto{"tcp:": service.TCP, "udp:": service.UDP, "sctp:": service.SCTP} {
		if rest, ok := strings.CutPrefix(text, name); ok {
			text, v.Proto = rest, proto
		}
	}
	addr, port := text, ""
	switch i := strings.LastIndexByte(text, ':'); {
	case strings.HasPrefix(text, "["):
		addr, port, _ = strings.Cut(text[1:], "]")
		port = strings.TrimPrefix(port, ":")
	case i >= 0 && i == strings.IndexByte(text, ':'):
		addr, port = text[:i], text[i+1:]
	}
	if strings.Contains(addr, "/") {
		v.Net, err = netip.ParsePrefix(addr)
	} else {
		var a netip.Addr
		if a, err = netip.ParseAddr(addr); err == nil {
			v.Net = netip.PrefixFrom(a, a.BitLen())
		}
	}
	if err == nil && port != "" {
		var n uint64
		n, err = strconv.ParseUint(port, 10, 16)
		v.Port = uint16(n)
	}
	if err != nil {
		return v, fmt.Errorf("%q is no service such as tcp:192.0.2.100:80", s)
	}
	return v, nil
}

// serves says that a connection is one of those that are balanced.
func (c *Config) serves(f *packet.Flow) bool {
	return len(c.Services) == 0 || slices.ContainsFunc(c.Services, func(s Service) bool {
		return (s.Proto == 0 || s.Proto == service.Proto(f.Proto)) && (s.Port == 0 || s.Port == f.DstPort) && s.Net.Contains(f.Dst.Netip())
	})
}

// ParseServer reads ADDRESS:PORT[,weight=N][,upper=N][,lower=N].
func ParseServer(s string) (v trial.Server, err error) {
	addr, options, _ := strings.Cut(s, ",")
	if v.Addr, err = netip.ParseAddrPort(addr); err != nil {
		return v, fmt.Errorf("%q is no server such as 10.0.0.11:80,weight=2", s)
	}
	v.Weight = 1
	for o := range strings.SplitSeq(options, ",") {
		name, value, _ := strings.Cut(o, "=")
		n, err := strconv.ParseUint(value, 10, 31)
		switch name {
		case "":
			continue
		case "weight":
			v.Weight = int32(min(n, 65535))
		case "upper":
			v.Upper = uint32(n)
		case "lower":
			v.Lower = uint32(n)
		default:
			return v, fmt.Errorf("%q: a server has weight, upper and lower, not %q", s, name)
		}
		if err != nil {
			return v, fmt.Errorf("%q: %s is no number", s, o)
		}
	}
	return v, nil
}

// Change is a change of the servers.
type Change struct {
	// At is when, since the first packet.
	At time.Duration
	// Server is as it is from then on: added, or with another weight and other thresholds.
	Server trial.Server
	// Remove takes it out.
	Remove bool
}

// ParseChange reads TIME:remove:ADDRESS:PORT or TIME:SERVER as ParseServer reads it, such as "30s:10.0.0.11:80,weight=0".
func ParseChange(s string) (c Change, err error) {
	at, rest, _ := strings.Cut(s, ":")
	if c.At, err = time.ParseDuration(at); err != nil || c.At < 0 {
		return c, fmt.Errorf("%q is no change such as 30s:10.0.0.11:80,weight=0 or 1m:remove:10.0.0.11:80", s)
	}
	rest, c.Remove = strings.CutPrefix(rest, "remove:")
	c.Server, err = ParseServer(rest)
	return c, err
}

// apply makes the list of before that of after; the latest added is first.
func (c *Change) apply(servers []trial.Server) []trial.Server {
	servers = slices.Clone(servers)
	i := slices.IndexFunc(servers, func(s trial.Server) bool { return s.Addr == c.Server.Addr })
	switch {
	case c.Remove && i >= 0:
		return slices.Delete(servers, i, i+1)
	case c.Remove:
		return servers
	case i >= 0:
		servers[i] = c.Server
		return servers
	}
	return slices.Insert(servers, 0, c.Server)
}

// Stats say what was in a recording.
type Stats struct {
	// Kind is "pcap", "pcapng" or "trace".
	Kind string
	// Packets counts packets, or rows of a trace; Skipped those that say nothing about connections, by reason.
	Packets uint64
	Skipped [numSkips]uint64
	// Opened counts connections, Elsewhere packets to other addresses than the services', Midway those of connections whose
	// beginning isn't in the recording.
	Opened, Elsewhere, Midway uint64
	// Shift says that the connections of one client in 1<<Shift were offered at the end, since there were too many at a time;
	// Thinned counts the others', Unheld those that there was no room for until room was made. MostHeld is the most that were
	// followed at a time.
	Shift           int
	Thinned, Unheld uint64
	MostHeld        int
	// Corrupt counts the places that made no sense, CorruptBytes what was skipped there; CorruptAt is where the first is: a
	// byte, or the line of a trace, and CorruptWhy then what is wrong there. Cut says that the file ends within a packet.
	Corrupt      uint64
	CorruptBytes int64
	CorruptAt    int64
	CorruptWhy   string
	Cut          bool
	// Backward counts packets that are more than a second older than one before them.
	Backward uint64
	// Lasted is the time from the first packet to the last, Took what the replay took.
	Lasted, Took time.Duration
}

// OneIn is the number of clients of which one's connections were offered at the end.
func (s *Stats) OneIn() uint16 { return 1 << s.Shift }

// Outcome is what became of a replay.
type Outcome struct {
	Stats   Stats
	Figures []trial.Figures
	// Partial says that it was interrupted.
	Partial bool
}

func (c *Config) progress() {
	if c.Progress != nil {
		c.Progress(c.read.n)
	}
}

// counted counts the bytes that are read.
type counted struct {
	in io.Reader
	n  int64
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.in.Read(b)
	c.n += int64(n)
	return n, err
}

// fill sets defaults and checks.
func (c *Config) fill() error {
	if len(c.Servers) == 0 {
		return errors.New("there are no real servers")
	}
	for i, s := range c.Servers {
		if slices.ContainsFunc(c.Servers[:i], func(o trial.Server) bool { return o.Addr == s.Addr }) {
			return fmt.Errorf("real server %v is there twice", s.Addr)
		}
	}
	if c.Flows <= 0 {
		c.Flows = 1 << 18
	}
	if len(c.Schedulers) == 0 {
		c.Schedulers = sched.Names()
	}
	slices.SortStableFunc(c.Changes, func(a, b Change) int { return cmp.Compare(a.At, b.At) })
	return nil
}

// source is a recording.
type source interface{ run(context.Context) error }

// source finds out what kind of recording it is.
func (c *Config) source(in *bufio.Reader, f *follower) (source, error) {
	p, err := openCapture(in)
	switch {
	case err == nil:
		f.stats.Kind = "pcap"
		if p.ng {
			f.stats.Kind = "pcapng"
		}
		return newPackets(c, p, f)
	case !errors.Is(err, errNoCapture):
		return nil, err
	}
	head, err := in.Peek(512)
	if len(head) == 0 {
		return nil, fmt.Errorf("it is empty: %w", cmp.Or(err, io.EOF))
	}
	if !utf8.Valid(head[:max(len(head)-utf8.UTFMax, 0)]) || slices.Contains(head, 0) {
		return nil, fmt.Errorf("it is neither pcap, pcapng nor a trace in CSV: it begins with % x", head[:min(8, len(head))])
	}
	f.stats.Kind = "trace"
	return newTrace(c, in, f)
}

// Run replays a recording: pcap, pcapng or a trace, gzipped or not. What is wrong in it is skipped and counted in the Stats. If
// ctx ends, the outcome is what there is so far, and no error.
func Run(ctx context.Context, in io.Reader, cfg Config) (*Outcome, error) {
	if err := cfg.fill(); err != nil {
		return nil, err
	}
	cfg.read = &counted{in: in}
	b := bufio.NewReaderSize(cfg.read, 1<<20)
	if head, _ := b.Peek(2); len(head) == 2 && head[0] == 0x1f && head[1] == 0x8b {
		z, err := gzip.NewReader(b)
		if err != nil {
			return nil, fmt.Errorf("it begins like gzip, but: %w", err)
		}
		b = bufio.NewReaderSize(z, 1<<20)
	}
	o := new(Outcome)
	f, err := newFollower(&cfg, &o.Stats)
	if err != nil {
		return nil, err
	}
	source, err := cfg.source(b, f)
	if err != nil {
		return nil, err
	}
	var w *traceWriter
	if cfg.Anonymise != nil {
		w = newTraceWriter(cfg.Anonymise, cfg.Key)
		f.write = w.write
	}
	began := time.Now()
	if err = source.run(ctx); err != nil && ctx.Err() != nil {
		o.Partial, err = true, nil
	}
	o.Stats.Took = time.Since(began)
	for _, g := range f.groups {
		o.Figures = append(o.Figures, g.Figures()...)
	}
	if w != nil {
		err = errors.Join(err, w.out.Flush())
	}
	return o, err
}
