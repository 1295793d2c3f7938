package config

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// ParseDuration reads a time as the file has it: 500ms, 30s, 5m, 1h30m, 2d.
func ParseDuration(s string) (Duration, error) {
	bad := fmt.Errorf("%q is not a time such as 500ms, 30s, 5m, 1h30m or 2d", s)
	if s == "" || strings.HasPrefix(s, "-") || strings.HasPrefix(s, "+") {
		return 0, bad
	}
	rest, days := s, time.Duration(0)
	if n, after, ok := strings.Cut(s, "d"); ok {
		v, err := strconv.ParseUint(n, 10, 16)
		if err != nil {
			return 0, bad
		}
		if days, rest = time.Duration(v)*24*time.Hour, after; rest == "" {
			return Duration(days), nil
		}
	}
	d, err := time.ParseDuration(rest)
	switch {
	case err == nil && rest != "0" && d+days >= 0:
		return Duration(d + days), nil
	case isDigits(s):
		return 0, fmt.Errorf("the time %s has no unit: write %ss if seconds are meant", s, s)
	}
	return 0, bad
}

// spanText is a time as the file has it, in days where it is whole days.
func spanText(d Duration) string {
	if day := Duration(24 * time.Hour); d >= day && d%day == 0 {
		return fmt.Sprintf("%dd", d/day)
	}
	return d.String()
}

func isDigits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// ParsePort reads 80 or 8000-8010; 0 is all ports.
func ParsePort(s string) (Port, error) {
	if s == "0" {
		return Port{}, nil
	}
	first, last, isRange := strings.Cut(s, "-")
	if !isRange {
		last = first
	}
	a, errA := strconv.ParseUint(strings.TrimSpace(first), 10, 32)
	b, errB := strconv.ParseUint(strings.TrimSpace(last), 10, 32)
	switch {
	case errA != nil || errB != nil:
		return Port{}, fmt.Errorf("%q is neither a port nor a range of ports such as 8000-8010", s)
	case a == 0 || a > 65535 || b > 65535:
		return Port{}, fmt.Errorf("%s is not within the ports 1 to 65535", s)
	case b < a:
		return Port{}, fmt.Errorf("the ports %s end before they begin: %d-%d may be meant", s, b, a)
	}
	return Port{uint16(a), uint16(b)}, nil
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *Port) UnmarshalText(text []byte) (err error) {
	*p, err = ParsePort(string(text))
	return err
}

// MarshalText implements encoding.TextMarshaler.
func (p Port) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// String gives 80 or 8000-8010.
func (p Port) String() string {
	if p.First == p.Last {
		return strconv.Itoa(int(p.First))
	}
	return fmt.Sprintf("%d-%d", p.First, p.Last)
}

// maxHosts is how many addresses a range may have.
const maxHosts = 65536

// ParseAddresses reads an address, or a range of addresses such as 192.0.2.100-192.0.2.110 or 2001:db8::1-2001:db8::9. ok is
// false if s is neither, as a host name is.
func ParseAddresses(s string) (r AddressRange, ok bool, err error) {
	first, last, isRange := strings.Cut(s, "-")
	a, errA := netip.ParseAddr(strings.TrimSpace(first))
	if !isRange {
		if errA != nil {
			return r, false, nil
		}
		return AddressRange{a, a}, true, plainAddress(a)
	}
	b, errB := netip.ParseAddr(strings.TrimSpace(last))
	switch {
	case errA != nil && errB != nil:
		return r, false, nil // a name with a hyphen
	case errA != nil || errB != nil:
		return r, true, fmt.Errorf("%q is not a range of addresses such as 192.0.2.100-192.0.2.110", s)
	}
	if err := errors.Join(plainAddress(a), plainAddress(b)); err != nil {
		return r, true, err
	}
	switch {
	case a.Is4() != b.Is4():
		return r, true, fmt.Errorf("the range %s has addresses of both families", s)
	case b.Less(a):
		return r, true, fmt.Errorf("the range %s ends before it begins: %v-%v may be meant", s, b, a)
	}
	n := 1
	for x := a; x != b; x = x.Next() {
		if n++; n > maxHosts {
			return r, true, fmt.Errorf("the range %s has more than %d addresses", s, maxHosts)
		}
	}
	return AddressRange{a, b}, true, nil
}

// plainAddress refuses what no packet has.
func plainAddress(a netip.Addr) error {
	switch {
	case a.Zone() != "":
		return fmt.Errorf("the address %v must have no zone", a)
	case a.Is4In6():
		return fmt.Errorf("the address %v is IPv4 written as IPv6: write %v", a, a.Unmap())
	}
	return nil
}

// All lists the addresses of the range.
func (r AddressRange) All() []netip.Addr {
	list := []netip.Addr{r.First}
	for a := r.First; a != r.Last; {
		a = a.Next()
		list = append(list, a)
	}
	return list
}

// checkHostName says what is wrong with a host name.
func checkHostName(s string) error {
	name := strings.TrimSuffix(s, ".")
	if name == "" || len(name) > 253 {
		return fmt.Errorf("%q is neither an address nor a host name", s)
	}
	digits := true
	for label := range strings.SplitSeq(name, ".") {
		digits = digits && isDigits(label)
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return fmt.Errorf("%q is neither an address nor a host name", s)
		}
		for _, c := range []byte(label) {
			if c != '-' && c != '_' && (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') {
				return fmt.Errorf("%q is neither an address nor a host name", s)
			}
		}
	}
	if digits {
		return fmt.Errorf("%q looks like an address, but is none", s)
	}
	return nil
}
