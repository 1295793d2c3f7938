package importer

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"uvs/config"
	"uvs/control/ipvsadm"
)

// builder gathers a configuration, whatever it comes from.
type builder struct {
	cfg    config.Config
	names  ipvsadm.Names
	seen   map[string]bool // services, by protocol, address and port, or mark
	labels map[string]bool // names of services and server groups
	ha     []*directive    // blocks for the high-availability section
	links  []string        // interfaces that these blocks name
	notes  []string        // comments for the end of the file
	equals string          // what stands between a keyword and its value, for ha
}

// check is a health check before it is known that its options fit its kind.
type check struct {
	config.CheckSettings
	options map[string]any // by their keys in uvs.yaml
}

// Bounds of uvs.yaml.
const (
	maxWeight      = 1<<31 - 1
	maxPersistence = 31 * 24 * time.Hour
	minInterval    = 10 * time.Millisecond
	maxInterval    = 24 * time.Hour
)

// maxAddresses is how many services a range may make: beyond, somebody mistyped it.
const maxAddresses = 65536

// addressRange reads an address or a range as uvs.yaml has it, and returns it in one form.
func addressRange(s string) (r config.AddressRange, err error) {
	r, ok, err := config.ParseAddresses(s)
	if err == nil && !ok {
		err = fmt.Errorf("%s is no address", s)
	}
	return r, err
}

// host checks an address, a range or a host name for a list of uvs.yaml.
func host(s string) error {
	if _, ok, err := config.ParseAddresses(s); ok {
		return err
	}
	return hostName(s)
}

// hostName says what is wrong with a host name.
func hostName(s string) error {
	name := strings.TrimSuffix(s, ".")
	digits := name != "" && len(name) <= 253
	for part := range strings.SplitSeq(name, ".") {
		digits = digits && strings.Trim(part, "0123456789") == ""
		if part == "" || len(part) > 63 || part[0] == '-' || part[len(part)-1] == '-' || strings.Trim(part, hostLetters) != "" {
			return fmt.Errorf("%q is neither an address nor a host's name", s)
		}
	}
	if digits || len(name) > 253 {
		return fmt.Errorf("%q is neither an address nor a host's name", s)
	}
	return nil
}

const hostLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"

// port reads a port's number.
func port(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil {
		return 0, fmt.Errorf("%q is no port", s)
	}
	return uint16(n), nil
}

// whole reads a number within bounds.
func whole(s string, low, high int64) (int, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is no number", s)
	}
	if n < low || n > high {
		return 0, fmt.Errorf("%d is not from %d to %d", n, low, high)
	}
	return int(n), nil
}

// seconds reads a time in seconds, which may have a fraction.
func seconds(s string) (time.Duration, error) {
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || v < 0 || v > 1e9 || v != v {
		return 0, fmt.Errorf("%q is no time in seconds", s)
	}
	return time.Duration(v*1e6+0.5) * time.Microsecond, nil
}

// label makes a name that uvs.yaml takes as a label, and that no other has.
func label(s string, labels map[string]bool) string {
	s = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-", r) {
			return r
		}
		return '-'
	}, s)
	s = strings.Trim(s, "._-")
	s = s[:min(len(s), 56)]
	if s == "" {
		s = "unnamed"
	}
	name := s
	for i := 2; labels[name]; i++ {
		name = fmt.Sprintf("%s-%d", s, i)
	}
	labels[name] = true
	return name
}

// errTwice says that a service is there already.
var errTwice = errors.New("there is already a virtual service of this address, port and protocol")

// claim notes that a service exists, or says that it did.
func (b *builder) claim(s *config.Service) error {
	var keys []string
	if s.FWMark != 0 {
		keys = []string{fmt.Sprintf("fwmark %d %s", s.FWMark, s.Family)}
	}
	for _, a := range s.Address {
		var hosts []string
		if r, ok, err := config.ParseAddresses(a); ok && err == nil {
			for _, h := range r.All() {
				hosts = append(hosts, h.String())
			}
		} else {
			hosts = []string{a}
		}
		for _, h := range hosts {
			for _, p := range s.Port {
				for _, proto := range protocols(s) {
					keys = append(keys, fmt.Sprintf("%s %s %v", proto, h, p))
				}
			}
		}
	}
	if slices.ContainsFunc(keys, func(k string) bool { return b.seen[k] }) {
		return errTwice
	}
	if len(b.seen)+len(keys) > maxAddresses {
		return fmt.Errorf("more than %d virtual services", maxAddresses)
	}
	for _, k := range keys {
		b.seen[k] = true
	}
	return nil
}

func protocols(s *config.Service) []string {
	if len(s.Protocol) == 0 {
		return []string{"tcp"}
	}
	return s.Protocol
}

// add adds a service, or says why uvsd would not take it.
func (b *builder) add(s *config.Service) error {
	part := config.Config{Services: []config.Service{*s}}
	for _, g := range b.cfg.ServerGroups {
		if slices.Contains(s.ServerGroups, g.Name) {
			part.ServerGroups = append(part.ServerGroups, g)
		}
	}
	for _, c := range b.cfg.Checks {
		if slices.ContainsFunc(s.Checks, func(u config.Check) bool { return u.Use == c.Name }) {
			part.Checks = append(part.Checks, c)
		}
	}
	if err := accepted(&part); err != nil {
		return err
	}
	if err := b.claim(s); err != nil {
		return err
	}
	b.cfg.Services = append(b.cfg.Services, *s)
	return nil
}

// elsewhere reports whether an error is about what isn't here but may be where uvsd runs: a certificate, a user.
func elsewhere(e *config.Error) bool {
	return strings.Contains(e.What, "no such file") || strings.Contains(e.What, "unknown user")
}

// accepted says whether uvsd --check accepts a part of a configuration.
func accepted(part *config.Config) error {
	text, err := config.Marshal(part)
	if err != nil {
		return err
	}
	_, err = config.Parse("", text)
	var list config.Errors
	if !errors.As(err, &list) {
		return err
	}
	for _, e := range list {
		if !elsewhere(e) {
			return errors.New(e.What)
		}
	}
	return nil
}

// connect adds an interface, with the address of a gateway or without, if there can be one of that name.
func (b *builder) connect(name, gateway string) error {
	i := slices.IndexFunc(b.cfg.Interfaces, func(i config.Interface) bool { return i.Name == name })
	x := config.Interface{Name: name}
	if i >= 0 {
		x = b.cfg.Interfaces[i]
	}
	if gateway != "" && !slices.Contains(x.Gateways, gateway) {
		x.Gateways = append(slices.Clone(x.Gateways), gateway)
	}
	if err := accepted(&config.Config{Interfaces: []config.Interface{x}}); err != nil {
		return err
	}
	if i < 0 {
		b.cfg.Interfaces = append(b.cfg.Interfaces, x)
	} else {
		b.cfg.Interfaces[i] = x
	}
	return nil
}

// placeChecks gives a service's servers their checks: the service itself, where all have the same.
func placeChecks(s *config.Service, servers []config.Server, checks [][]check) error {
	if len(servers) == 0 {
		return nil
	}
	same := true
	for i := range checks {
		same = same && reflect.DeepEqual(checks[i], checks[0])
	}
	if same {
		list, err := configChecks(checks[0])
		s.Checks = list
		return err
	}
	for i := range servers {
		list, err := configChecks(checks[i])
		if err != nil {
			return err
		}
		servers[i].Checks = list
	}
	return nil
}

// configChecks makes checks of uvs.yaml. Two of one kind get names.
func configChecks(list []check) (out []config.Check, err error) {
	count := map[string]int{}
	for _, c := range list {
		if count[c.Kind]++; count[c.Kind] > 1 && c.ID == "" {
			c.ID = fmt.Sprintf("%s-%d", c.Kind, count[c.Kind])
		}
		options, err := prober(c.Kind, c.options)
		if err != nil {
			return nil, fmt.Errorf("check of kind %s: %w", c.Kind, err)
		}
		out = append(out, config.Check{CheckSettings: c.CheckSettings, Options: options})
	}
	return out, nil
}

// setSorry sets a policy's sorry server. Nothing on the way can change the port but NAT.
func setSorry(h *config.Health, address string, port int, method string) {
	if h.Sorry = address; method == "nat" && port != 0 {
		h.Sorry = net.JoinHostPort(address, strconv.Itoa(port))
	}
	if h.SorryMethod = method; method == "nat" {
		h.SorryMethod = "" // the default
	}
}

// says reports whether a policy says anything.
func says(h *config.Health) bool {
	return h.Reaction != "" || h.Quorum != 0 || h.Hysteresis != 0 || h.Sorry != "" || h.NotifyUp != nil || h.NotifyDown != nil || h.QuorumUp != nil ||
		h.QuorumDown != nil
}

// clamp keeps a time within bounds and says whether it had to.
func clamp(v, low, high time.Duration) (config.Duration, bool) {
	c := min(max(v, low), high)
	return config.Duration(c), c != v
}

// from is a comment that says where something comes from.
func (d *directive) from() string {
	return fmt.Sprintf("%s:%d: %s", d.file, d.line, cmp.Or(d.text(), d.name))
}
