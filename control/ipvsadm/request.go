package ipvsadm

import (
	"fmt"
	"net/netip"
	"strings"

	"uvs/control/api"
)

// request is a command line as it has been read so far. Options are read in their order, which matters as it does in
// ipvsadm: a -r before its -t knows no port to take, a -M before an IPv6 address is forgotten.
type request struct {
	lookup *lookup
	cmd    command
	given  optionSet
	labels bool // list prints names too

	key     api.ServiceKey
	is6     bool
	proto   string // for port names; a mark's servers have those of TCP
	config  api.ServiceConfig
	flags   string // of the scheduler, not yet looked at
	server  api.ServerKey
	serve   api.ServerConfig
	tunnel  api.TunnelConfig
	daemon  api.Daemon
	timeout api.Timeouts
}

// failure ends ipvsadm with a message and an exit status.
type failure struct {
	text string
	exit int
}

func (f *failure) Error() string { return f.text }

// failf is how ipvsadm gives up on a command line it has understood and does not accept.
func failf(format string, args ...any) error {
	return &failure{text: fmt.Sprintf(format, args...), exit: 2}
}

// set notes an option, which may stand only once.
func (r *request) set(o option) error {
	if r.given.has(o) {
		return failf("multiple '%s' options specified", optionNames[o])
	}
	r.given |= 1 << o
	return nil
}

// flag reads an option without a value.
func flag(o option) func(*request, string, bool) error {
	return func(r *request, _ string, _ bool) error { return r.set(o) }
}

// num reads an option whose value is a number.
func (r *request) num(o option, value string, lowest, highest int64, complaint string) (int64, error) {
	if err := r.set(o); err != nil {
		return 0, err
	}
	n, ok := number(value, lowest, highest)
	if !ok {
		return 0, failf("%s", complaint)
	}
	return n, nil
}

func service(proto string) func(*request, string, bool) error {
	return func(r *request, value string, _ bool) error {
		if err := r.set(optService); err != nil {
			return err
		}
		r.proto = proto
		e, ok := r.lookup.endpoint(value, proto)
		if !ok {
			return failf("illegal virtual server address[:port] specified")
		}
		r.key = api.ServiceKey{Protocol: proto, Address: e.addr, Port: e.port}
		r.setFamily(e.addr.Is6())
		return nil
	}
}

// setFamily notes the service's family. IPv6 makes the mask whole again.
func (r *request) setFamily(is6 bool) {
	r.is6 = is6
	if is6 {
		r.config.Netmask = api.Netmask{}
	}
}

func (r *request) mark(value string, _ bool) error {
	if err := r.set(optService); err != nil {
		return err
	}
	n, ok := number(value, 1, 1<<32-1)
	if !ok {
		return failf("invalid fwmark value `%s' specified", value)
	}
	r.key, r.proto = api.ServiceKey{FWMark: uint32(n), Family: api.IPv4}, api.TCP
	return nil
}

func (r *request) ipv6(string, bool) error {
	if r.key.FWMark == 0 {
		return failf("-6 used before -f\n") // with the original's empty line
	}
	r.key.Family = api.IPv6
	r.setFamily(true)
	return nil
}

func (r *request) scheduler(value string, _ bool) error {
	r.config.Scheduler = value
	return r.set(optScheduler)
}

// Limits of timeouts, in seconds.
const (
	defaultPersistence = 360
	maxTimeout         = 31 * 24 * 60 * 60
)

func seconds(value string, lowest int64) (uint32, error) {
	n, ok := number(value, lowest, maxTimeout)
	if !ok {
		return 0, failf("invalid timeout value `%s' specified", value)
	}
	return uint32(n), nil
}

func (r *request) persistent(value string, has bool) (err error) {
	if err := r.set(optPersistent); err != nil {
		return err
	}
	r.config.PersistenceSeconds = defaultPersistence
	if has {
		r.config.PersistenceSeconds, err = seconds(value, 1)
	}
	return err
}

func (r *request) netmask(value string, _ bool) error {
	if err := r.set(optNetmask); err != nil {
		return err
	}
	if r.is6 {
		bits, ok := number(value, 1, 128)
		if !ok {
			return failf("illegal ipv6 netmask specified")
		}
		r.config.Netmask, _ = api.Netmask6(int(bits))
		return nil
	}
	a, ok := r.lookup.ipv4(value)
	if !ok {
		return failf("illegal virtual server persistent mask specified")
	}
	r.config.Netmask = api.Netmask4(a.As4())
	return nil
}

func (r *request) engine(value string, _ bool) error {
	r.config.PersistenceEngine = value
	return r.set(optEngine)
}

func (r *request) onePacket(string, bool) error {
	r.config.OnePacket = true
	return r.set(optOnePacket)
}

func (r *request) schedFlags(value string, _ bool) error {
	r.flags = value
	return r.set(optSchedFlags)
}

func (r *request) realServer(value string, _ bool) error {
	if err := r.set(optServer); err != nil {
		return err
	}
	e, ok := r.lookup.endpoint(value, r.proto)
	if !ok {
		return failf("illegal real server address[:port] specified")
	}
	r.server = api.ServerKey{Address: e.addr, Port: e.port}
	if !e.has {
		r.server.Port = r.key.Port
	}
	return nil
}

func method(name string) func(*request, string, bool) error {
	return func(r *request, _ string, _ bool) error {
		r.serve.Method = name
		return r.set(optMethod)
	}
}

func (r *request) weight(value string, _ bool) error {
	n, err := r.num(optWeight, value, 0, api.MaxWeight, "illegal weight specified")
	r.serve.Weight = int(n)
	return err
}

func (r *request) upper(value string, _ bool) error {
	n, err := r.num(optUpper, value, 0, 1<<31-1, "illegal u_threshold specified")
	r.serve.Upper = uint32(n)
	return err
}

func (r *request) lower(value string, _ bool) error {
	n, err := r.num(optLower, value, 0, 1<<31-1, "illegal l_threshold specified")
	r.serve.Lower = uint32(n)
	return err
}

func (r *request) tunType(value string, _ bool) error {
	if err := r.set(optTunType); err != nil {
		return err
	}
	if _, known := tunnelTakes[value]; !known {
		return failf("illegal tunnel type specified")
	}
	r.tunnel.Type = value
	return nil
}

func (r *request) tunPort(value string, _ bool) error {
	n, err := r.num(optTunPort, value, 1, 65535, "illegal tunnel port specified")
	r.tunnel.Port = uint16(n)
	return err
}

func (r *request) mcastInterface(value string, _ bool) error {
	r.daemon.Interface = value
	return r.set(optMcastInterface)
}

func (r *request) syncID(value string, _ bool) error {
	n, err := r.num(optSyncID, value, 0, 255, "illegal syncid specified")
	r.daemon.SyncID = uint8(n)
	return err
}

func (r *request) syncMaxLen(value string, _ bool) error {
	n, err := r.num(optSyncMaxLen, value, 1, 65507, "illegal sync-maxlen specified") // 65535 less the headers of IPv4 and UDP
	r.daemon.MaxLen = uint16(n)
	return err
}

func (r *request) mcastGroup(value string, _ bool) error {
	if err := r.set(optMcastGroup); err != nil {
		return err
	}
	a, err := netip.ParseAddr(value)
	if err != nil || !a.IsMulticast() || a.Is4In6() || a.Zone() != "" {
		family := api.IPv4
		if strings.Contains(value, ":") {
			family = api.IPv6
		}
		return failf("invalid %s mcast-group `%s'", map[string]string{api.IPv4: "IPv4", api.IPv6: "IPv6"}[family], value)
	}
	r.daemon.Group = value
	return nil
}

func (r *request) mcastPort(value string, _ bool) error {
	n, err := r.num(optMcastPort, value, 1, 65535, "illegal mcast-port specified")
	r.daemon.Port = uint16(n)
	return err
}

func (r *request) mcastTTL(value string, _ bool) error {
	n, err := r.num(optMcastTTL, value, 1, 255, "illegal mcast-ttl specified")
	r.daemon.TTL = uint8(n)
	return err
}
