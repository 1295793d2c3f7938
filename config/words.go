package config

import (
	"fmt"
	"reflect"
	"strings"
)

// nouns name the model's types in messages.
var nouns = map[reflect.Type]string{
	reflect.TypeFor[Config]():       "the file",
	reflect.TypeFor[Interface]():    "an interface",
	reflect.TypeFor[Service]():      "a service",
	reflect.TypeFor[Server]():       "a server",
	reflect.TypeFor[ServerGroup]():  "a server group",
	reflect.TypeFor[Check]():        "a check",
	reflect.TypeFor[Health]():       "a health policy",
	reflect.TypeFor[MarkRule]():     "a mark rule",
	reflect.TypeFor[SyncDaemon]():   "a sync daemon",
	reflect.TypeFor[Port]():         "port",
	reflect.TypeFor[InnerTraffic](): "inner",
}

func nounOf(t reflect.Type) string { return nouns[t] }

// keysElsewhere are keys of other programs, and words that people use, with what they are called here.
var keysElsewhere = map[string]string{
	"virtualserver": "services", "virtualservers": "services", "virtualservices": "services", "virtual": "services", "service": "services",
	"realserver": "servers", "realservers": "servers", "real": "servers", "backends": "servers", "destinations": "servers", "server": "servers",
	"virtualservergroup": "groups", "servergroup": "groups", "servergroups": "groups", "lbalgo": "scheduler", "lvssched": "scheduler",
	"algorithm": "scheduler", "sched": "scheduler", "lbkind": "method", "lvsmethod": "method", "forwarding": "method", "forward": "method",
	"gatewaying": "method", "masquerading": "method", "delayloop": "interval", "checkinterval": "interval", "delay": "interval",
	"persistencetimeout": "persistence", "persistent": "persistence", "persistencegranularity": "netmask", "persistenceengine": "engine",
	"onepacket": "ops", "onepacketscheduling": "ops", "schedflags": "flags", "schedulerflags": "flags", "uthreshold": "upper",
	"lthreshold": "lower", "upperthreshold": "upper", "lowerthreshold": "lower", "vip": "address", "ip": "address", "addresses": "address",
	"ports": "port", "listen": "address", "proto": "protocol", "protocols": "protocol", "mark": "fwmark", "firewallmark": "fwmark",
	"destination": "dst", "source": "src", "destinationport": "dport", "sourceport": "sport", "destinationports": "dport", "sourceports": "sport",
	"type": "kind", "healthcheck": "checks", "healthchecks": "checks", "checktype": "checks", "check": "checks", "sysctl": "settings",
	"sysctls": "settings", "maxconnections": "connections", "loglevel": "log", "connecttimeout": "timeout", "checktimeout": "timeout",
	"sorryserver": "sorry", "fallback": "sorry", "gateway": "gateways", "probeaddress": "probes", "probeaddresses": "probes",
	"delaybeforeretry": "retry", "nbgetretry": "fall", "encapsulation": "type", "tunneltype": "type", "policy": "policies",
	"healthpolicies": "policies", "innertraffic": "inner", "syncdaemons": "sync", "marks": "marks", "announceinterval": "announce",
}

// wordsElsewhere are values of other programs with what they are called here.
var wordsElsewhere = map[string]string{
	"route": "dr", "gate": "dr", "gatewaying": "dr", "direct": "dr", "directrouting": "dr", "dsr": "dr", "masq": "nat", "masquerading": "nat",
	"masquerade": "nat", "ipip": "tun", "tunnel": "tun", "tunnelling": "tun", "tunneling": "tun", "inet": "ipv4", "inet6": "ipv6", "4": "ipv4",
	"6": "ipv6", "warning": "warn", "err": "error", "yes": "true", "no": "false", "own": "interface", "none": "drop",
}

// schedulersElsewhere are names that schedulers have in other programs.
var schedulersElsewhere = map[string]string{
	"leastconn": "lc", "leastconnection": "lc", "leastconnections": "lc", "roundrobin": "rr", "weightedroundrobin": "wrr",
	"weightedleastconnection": "wlc", "weightedleastconnections": "wlc", "weightedleastconn": "wlc", "sourcehash": "sh", "sourcehashing": "sh",
	"src": "sh", "iphash": "sh", "destinationhash": "dh", "destinationhashing": "dh", "maglev": "mh", "random": "twos", "failover": "fo",
	"overflow": "ovf", "weightedfailover": "fo", "weightedoverflow": "ovf", "firstalive": "fo",
}

// plainWord is a word without what people write differently: case, dashes, underlines.
func plainWord(s string) string {
	return strings.NewReplacer("_", "", "-", "", " ", "").Replace(strings.ToLower(s))
}

// didYouMean is the known word that may have been meant, as the end of a message; without one, the known words if they are few.
func didYouMean(word string, known []string, elsewhere map[string]string) string {
	plain := plainWord(word)
	best, least := "", max(min(len(plain)/3, 3), 1)+1
	if len(plain) <= 64 {
		for _, k := range known {
			if d := distance(plain, plainWord(k)); d < least {
				best, least = k, d
			}
		}
		if other := elsewhere[plain]; least > 0 && other != "" {
			for _, k := range known {
				if k == other {
					best = k
				}
			}
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", best)
}

// alternatives lists words: a, b or c.
func alternatives(words []string) string {
	if len(words) == 1 {
		return words[0]
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}

// cut shortens what a message quotes.
func cut(s string) string {
	const most = 60
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "..."
	}
	return s
}

// distance is how many letters must be changed, put in, taken out, or swapped with their neighbours to make b of a.
func distance(a, b string) int {
	before, row := []int(nil), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		next := make([]int, len(b)+1)
		next[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			next[j] = min(row[j]+1, next[j-1]+1, row[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				next[j] = min(next[j], before[j-2]+1)
			}
		}
		before, row = row, next
	}
	return row[len(b)]
}
