// Package sysctl has a director's settings by their names: those of the kernel's sysctls below net.ipv4.vs, and uvs's own.
package sysctl

import (
	"cmp"
	"fmt"
	"math"
	"math/bits"
	"slices"
	"strconv"
	"strings"
	"time"

	"uvs/control/api"
	"uvs/service"
)

// Setting is a setting by name.
type Setting struct {
	// Name is in full, such as net.ipv4.vs.conn_reuse_mode.
	Name string
	of   func(*service.Settings) value
	note string // why it does nothing; empty where it does something
}

// value is one setting's place in the settings.
type value interface {
	// String is the text that sysctl prints.
	String() string
	// Set reads that text. Its error has a code.
	Set(string) error
}

const (
	noSync      = "connection synchronisation is not in this version"
	noNetfilter = "uvs keeps no entries in netfilter's connection tracking; FTP and NAT need none"
	seenOnce    = "uvs sees a packet once, on the wire: what leaves a tunnel of the host never comes back to it"
	byDest      = "NAT's answers are routed by their destination alone"
	ownLog      = "uvsd's log has levels of its own: uvsd --help"
	cheapRates  = "rates cost uvs next to nothing, and are always there"
)

// all are the settings in alphabetical order, those of the kernel first.
var all = []Setting{
	{"net.ipv4.vs.am_droprate", number(func(s *service.Settings) *int { return &s.AmDropRate }, 0, math.MaxInt32), ""},
	{"net.ipv4.vs.amemthresh", number(func(s *service.Settings) *int { return &s.AmemThresh }, 0, math.MaxInt32), ""},
	{"net.ipv4.vs.backup_only", onOff(func(s *service.Settings) *bool { return &s.BackupOnly }), noSync},
	{"net.ipv4.vs.cache_bypass", onOff(func(s *service.Settings) *bool { return &s.CacheBypass }), ""},
	{"net.ipv4.vs.conn_reuse_mode", number(func(s *service.Settings) *int { return &s.ConnReuseMode }, 0, math.MaxInt32), ""},
	{"net.ipv4.vs.conntrack", onOff(func(s *service.Settings) *bool { return &s.Conntrack }), noNetfilter},
	{"net.ipv4.vs.debug_level", number(func(s *service.Settings) *int { return &s.DebugLevel }, math.MinInt32, math.MaxInt32), ownLog},
	{"net.ipv4.vs.drop_entry", defenceMode(func(s *service.Settings) *service.DefenceMode { return &s.DropEntry }), ""},
	{"net.ipv4.vs.drop_packet", defenceMode(func(s *service.Settings) *service.DefenceMode { return &s.DropPacket }), ""},
	{"net.ipv4.vs.expire_nodest_conn", onOff(func(s *service.Settings) *bool { return &s.ExpireNodestConn }), ""},
	{"net.ipv4.vs.expire_quiescent_template", onOff(func(s *service.Settings) *bool { return &s.ExpireQuiescentTemplate }), ""},
	{"net.ipv4.vs.ignore_tunneled", onOff(func(s *service.Settings) *bool { return &s.IgnoreTunneled }), seenOnce},
	{"net.ipv4.vs.lblc_expiration", wholeSeconds(func(s *service.Settings) *time.Duration { return &s.LBLCExpiration }, 1), ""},
	{"net.ipv4.vs.lblcr_expiration", wholeSeconds(func(s *service.Settings) *time.Duration { return &s.LBLCRExpiration }, 1), ""},
	{"net.ipv4.vs.nat_icmp_send", onOff(func(s *service.Settings) *bool { return &s.NATICMPSend }), ""},
	{"net.ipv4.vs.pmtu_disc", onOff(func(s *service.Settings) *bool { return &s.PMTUDisc }), ""},
	{"net.ipv4.vs.run_estimation", onOff(func(s *service.Settings) *bool { return &s.RunEstimation }), cheapRates},
	{"net.ipv4.vs.schedule_icmp", onOff(func(s *service.Settings) *bool { return &s.ScheduleICMP }), ""},
	{"net.ipv4.vs.secure_tcp", defenceMode(func(s *service.Settings) *service.DefenceMode { return &s.SecureTCP }), ""},
	{"net.ipv4.vs.sloppy_sctp", onOff(func(s *service.Settings) *bool { return &s.SloppySCTP }), ""},
	{"net.ipv4.vs.sloppy_tcp", onOff(func(s *service.Settings) *bool { return &s.SloppyTCP }), ""},
	{"net.ipv4.vs.snat_reroute", onOff(func(s *service.Settings) *bool { return &s.SNATReroute }), byDest},
	{"net.ipv4.vs.sync_persist_mode", onOff(func(s *service.Settings) *bool { return &s.Sync.PersistMode }), noSync},
	{"net.ipv4.vs.sync_ports", func(s *service.Settings) value { return portCount{&s.Sync.Ports} }, noSync},
	{"net.ipv4.vs.sync_qlen_max", number(func(s *service.Settings) *int { return &s.Sync.QueueMax }, 0, math.MaxInt32), noSync},
	{"net.ipv4.vs.sync_refresh_period", wholeSeconds(func(s *service.Settings) *time.Duration { return &s.Sync.RefreshPeriod }, 0), noSync},
	{"net.ipv4.vs.sync_retries", number(func(s *service.Settings) *int { return &s.Sync.Retries }, 0, 3), noSync},
	{"net.ipv4.vs.sync_sock_size", number(func(s *service.Settings) *int { return &s.Sync.SocketSize }, 0, math.MaxInt32), noSync},
	{"net.ipv4.vs.sync_threshold", func(s *service.Settings) value { return syncThreshold{&s.Sync} }, noSync},
	{"net.ipv4.vs.sync_version", number(func(s *service.Settings) *int { return &s.Sync.Version }, 0, 1), noSync},
	{"uvs.keep_template_timeout", onOff(func(s *service.Settings) *bool { return &s.KeepTemplateTimeout }), ""},
}

// All are the settings in alphabetical order, those of the kernel first.
func All() []Setting { return slices.Clone(all) }

// Find finds a setting by its name, with or without net.ipv4, with dots or slashes. The error has a code.
func Find(name string) (*Setting, error) {
	full := strings.ReplaceAll(name, "/", ".")
	if strings.HasPrefix(full, "vs.") {
		full = "net.ipv4." + full
	}
	i, ok := slices.BinarySearchFunc(all, full, func(c Setting, name string) int { return cmp.Compare(c.Name, name) })
	if !ok {
		return nil, api.Errorf(api.SettingNotFound, "no such setting: %s", name)
	}
	return &all[i], nil
}

// Set reads the text of a value into s. Its error has a code and says what is wrong with the value.
func (c *Setting) Set(s *service.Settings, text string) error { return c.of(s).Set(text) }

// Describe is the setting as the API shows it.
func (c *Setting) Describe(s *service.Settings) api.Setting {
	initial := service.DefaultSettings()
	return api.Setting{Name: c.Name, Value: c.of(s).String(), Default: c.of(&initial).String(), Note: c.note}
}

// readNumber reads a decimal number from lowest to highest.
func readNumber(text string, lowest, highest int) (int, error) {
	n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	switch {
	case err != nil:
		return 0, api.Errorf(api.Invalid, "%q is not a number", text)
	case n < int64(lowest) || n > int64(highest):
		return 0, api.Errorf(api.OutOfRange, "%d is not between %d and %d", n, lowest, highest)
	}
	return int(n), nil
}

// onOff is a switch: 0, or any other number, as the kernel takes it.
func onOff(of func(*service.Settings) *bool) func(*service.Settings) value {
	return func(s *service.Settings) value { return flag{of(s)} }
}

type flag struct{ on *bool }

func (f flag) String() string {
	if *f.on {
		return "1"
	}
	return "0"
}

func (f flag) Set(text string) error {
	n, err := readNumber(text, math.MinInt32, math.MaxInt32)
	*f.on = n != 0
	return err
}

// number is a number in a range.
func number(of func(*service.Settings) *int, lowest, highest int) func(*service.Settings) value {
	return func(s *service.Settings) value { return ranged{of(s), lowest, highest} }
}

type ranged struct {
	n               *int
	lowest, highest int
}

func (r ranged) String() string { return strconv.Itoa(*r.n) }

func (r ranged) Set(text string) (err error) {
	*r.n, err = readNumber(text, r.lowest, r.highest)
	return err
}

// defenceMode is when a defence is used.
func defenceMode(of func(*service.Settings) *service.DefenceMode) func(*service.Settings) value {
	return func(s *service.Settings) value { return mode{of(s)} }
}

type mode struct{ m *service.DefenceMode }

func (m mode) String() string { return strconv.Itoa(int(*m.m)) }

func (m mode) Set(text string) error {
	n, err := readNumber(text, int(service.DefenceOff), int(service.DefenceAlways))
	*m.m = service.DefenceMode(n)
	return err
}

// wholeSeconds is a time in seconds.
func wholeSeconds(of func(*service.Settings) *time.Duration, lowest int) func(*service.Settings) value {
	return func(s *service.Settings) value { return span{of(s), lowest} }
}

type span struct {
	d      *time.Duration
	lowest int
}

func (p span) String() string { return strconv.FormatInt(int64(*p.d/time.Second), 10) }

func (p span) Set(text string) error {
	n, err := readNumber(text, p.lowest, math.MaxInt32)
	*p.d = time.Duration(n) * time.Second
	return err
}

// portCount is a power of two up to 64.
type portCount struct{ n *int }

func (c portCount) String() string { return strconv.Itoa(*c.n) }

func (c portCount) Set(text string) (err error) {
	if *c.n, err = readNumber(text, 1, 64); err == nil && bits.OnesCount(uint(*c.n)) != 1 {
		err = api.Errorf(api.Invalid, "%d is not a power of two", *c.n)
	}
	return err
}

// syncThreshold is two numbers: at which packet a connection is sent, and after how many again.
type syncThreshold struct{ s *service.SyncSettings }

func (t syncThreshold) String() string { return fmt.Sprintf("%d %d", t.s.Threshold, t.s.Period) }

func (t syncThreshold) Set(text string) (err error) {
	words := strings.Fields(text)
	if len(words) != 2 {
		return api.Errorf(api.Invalid, "%q is not two numbers", text)
	}
	if t.s.Threshold, err = readNumber(words[0], 0, math.MaxInt32); err != nil {
		return err
	}
	if t.s.Period, err = readNumber(words[1], 0, math.MaxInt32); err != nil {
		return err
	}
	if t.s.Period != 0 && t.s.Threshold >= t.s.Period {
		return api.Errorf(api.Invalid, "the first number must be below the second, unless that is 0")
	}
	return nil
}
