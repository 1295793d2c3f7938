// Package health asks real servers whether they can serve, and says when the answer changes.
//
// A kind of check (tcp.go, http.go ...) is a Prober: its fields are its options, in JSON, in uvs.yaml and on uvsadm's command
// line alike. It opens no socket of its own but through Target's Dial, so that the same probe goes to the server's own address
// or, through the packet path, to the virtual service's address at one chosen server.
package health

import (
	"context"
	"net"
	"net/netip"
	"time"

	"uvs/service"
)

// Target is where one probe goes.
type Target struct {
	// Server is the real server's address and the port to ask, which is the service's unless the check names another.
	Server netip.AddrPort
	// Address is what the probe is addressed to: Server, or the virtual service's address and port when the probe goes
	// through the virtual address. Host headers and certificates' names don't follow from it; checks have options for them.
	Address netip.AddrPort
	// Protocol is the virtual service's.
	Protocol service.Proto
	// Dial opens a connection to Address; network is "tcp" or "udp". It fails when ctx ends.
	Dial func(ctx context.Context, network string) (net.Conn, error)
	// Record, if not nil, is told each piece of the exchange as it was sent or received, for `uvsadm check test`.
	Record func(sent bool, data []byte)
	// Weigh, if not nil, may be called by a probe that succeeds: it says what share of its configured weight the server asks
	// for, 1 being all of it and 0 no new connections. What isn't said again with the next success is 1.
	Weigh func(factor float64)
	// Setup, if not nil, has clients' connections to the server timed, and returns their recent average from SYN to first ACK, or 0.
	Setup func() time.Duration
}

// Prober is one kind of check with its options.
type Prober interface {
	// Kind is the kind's name, such as "http".
	Kind() string
	// Prepare checks the options, fills in defaults, and compiles what is compiled once. It is called before the first Probe;
	// its error names the option and says what is expected.
	Prepare() error
	// Probe asks once. It returns what the server said in a few words ("200 OK in 3 ms" is the caller's to add), or why it can't
	// serve. It must return soon after ctx ends, whatever the server does, and may keep only bounded memory of what it reads.
	// Several probes of one Prober run at once.
	Probe(ctx context.Context, to *Target) (said string, err error)
}

// kinds has a constructor for each kind's options, by name. A new kind is a file, its test, and a line here.
var kinds = map[string]func() Prober{
	"agent":    func() Prober { return new(AgentCheck) },
	"arp":      func() Prober { return new(ARP) },
	"dns":      func() Prober { return new(DNS) },
	"exec":     func() Prober { return new(Exec) },
	"expect":   func() Prober { return new(Expect) },
	"file":     func() Prober { return new(WeightFile) },
	"ftp":      func() Prober { return new(FTP) },
	"grpc":     func() Prober { return new(GRPC) },
	"http":     func() Prober { return new(HTTP) },
	"https":    func() Prober { return new(HTTPS) },
	"icmp":     func() Prober { return new(ICMP) },
	"imap":     func() Prober { return new(IMAP) },
	"latency":  func() Prober { return new(Latency) },
	"ldap":     func() Prober { return new(LDAP) },
	"mysql":    func() Prober { return new(MySQL) },
	"pop3":     func() Prober { return new(POP3) },
	"postgres": func() Prober { return new(Postgres) },
	"radius":   func() Prober { return new(Radius) },
	"sip":      func() Prober { return new(SIP) },
	"smtp":     func() Prober { return new(SMTP) },
	"snmp":     func() Prober { return new(SNMP) },
	"tcp":      func() Prober { return new(TCP) },
	"udp":      func() Prober { return new(UDP) },
}

// record tells of a piece of the exchange if somebody wants to know.
func (t *Target) record(sent bool, data []byte) {
	if t.Record != nil {
		t.Record(sent, data)
	}
}
