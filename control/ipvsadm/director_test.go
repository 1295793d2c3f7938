package ipvsadm

import (
	"testing"
	"time"

	"uvs/conntrack"
	"uvs/control"
	services "uvs/service"
)

// idle is a packet path without packets.
type idle struct{ timeouts conntrack.Timeouts }

func (*idle) AddCounters([]services.Counters, []services.Counters)          {}
func (*idle) Walk(int64, func(*conntrack.Conn) bool)                        {}
func (*idle) Stats() conntrack.Stats                                        { return conntrack.Stats{} }
func (*idle) ExpireRemoved()                                                {}
func (*idle) TemplateData(conntrack.ID) string                              { return "" }
func (*idle) SetSettings(conntrack.Settings)                                {}
func (*idle) DropRandom(int64, func(uint32) uint32) int                     { return 0 }
func (*idle) Forsake(func(*services.RealServer) bool, int64) conntrack.Cuts { return conntrack.Cuts{} }
func (*idle) Cut(func(*services.RealServer) bool, int64) conntrack.Cuts     { return conntrack.Cuts{} }
func (i *idle) Timeouts() conntrack.Timeouts                                { return i.timeouts }

func (i *idle) SetTimeouts(tcp, tcpFin, udp time.Duration) {
	for at, d := range map[*time.Duration]time.Duration{&i.timeouts.TCP: tcp, &i.timeouts.TCPFin: tcpFin, &i.timeouts.UDP: udp} {
		if d != 0 {
			*at = d
		}
	}
}

// newDirector is uvsd's own desired state, with nothing behind it, on the host of the recordings.
func newDirector() *control.Director {
	path := &idle{conntrack.DefaultTimeouts()}
	return control.New(control.Config{
		Servers: new(services.ServerIndex), Connections: path, Counters: path, Now: func() int64 { return 1 },
		InterfaceMTU: func(name string) int { return map[string]int{"vec1": 1500, "lo": 65536}[name] },
		Interfaces:   []string{"eth0", "eth1"},
	})
}

// The same command lines, with uvsd's own desired state in the kernel's place. An address of network 0 is no real server's,
// though the kernel takes it.
func TestTheDirectorAnswersAsTheKernelDid(t *testing.T) {
	newMachine := func() *machine {
		return &machine{names: hosts{}, backend: newDirector()}
	}
	checkErrors(t, newMachine)
	checkRecordings(t, newMachine, "-r 0.0.0.1")
}
