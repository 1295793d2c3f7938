package ipvsadm

import (
	"regexp"
	"strings"
)

// syntax is what can be written after a word: the one definition that completion is made from, and that the tests hold the
// parsers, words.txt and the manual page against.
type syntax struct {
	name    string // "drain", "mark add"; letters for ipvsadm's own language
	help    string // what it does, in a line
	options []optionSyntax
	operand valueSyntax // what may stand there without an option
}

// optionSyntax is an option.
type optionSyntax struct {
	names []string // with their hyphens: "-t", "--tcp-service"
	value valueSyntax
	help  string
}

// valueSyntax is what an option takes, or a word. The zero value is none.
type valueSyntax struct {
	name    string // what the manual calls it
	choices []string
	source  source
}

// source is where the values are to be looked up that cannot be listed here.
type source uint8

const (
	anything     source = iota
	fromServices        // addresses of virtual services
	fromServers         // addresses of real servers
	fromSettings        // names of settings
	fromFiles
)

// letters is the name of ipvsadm's own language among the words.
const letters = "-"

// Values.
var (
	theVIP     = valueSyntax{name: "address:port", source: fromServices}
	theServer  = valueSyntax{name: "server", source: fromServers}
	schedulers = []string{"rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "sed", "nq", "mh", "fo", "ovf", "twos", "rt"}
	checkKinds = []string{"agent", "arp", "dns", "exec", "expect", "file", "ftp", "grpc", "http", "https", "icmp", "imap", "latency", "ldap",
		"mysql", "pop3", "postgres", "radius", "sip", "smtp", "snmp", "tcp", "udp"}
	theProtocol = valueSyntax{name: "protocol", choices: []string{"tcp", "udp", "sctp"}}
)

func value(name string) valueSyntax { return valueSyntax{name: name} }

func opt(names, help string, v ...valueSyntax) optionSyntax {
	o := optionSyntax{names: strings.Fields(names), help: help}
	if len(v) > 0 {
		o.value = v[0]
	}
	return o
}

// Options that several words have.
var (
	asJSON    = opt("--json", "in JSON, as the API has it")
	tcpOption = opt("-t --tcp-service", "the TCP service", theVIP)
	udpOption = opt("-u --udp-service", "the UDP service", theVIP)
	ofService = []optionSyntax{tcpOption, udpOption, opt("--sctp-service", "the SCTP service", theVIP),
		opt("-f --fwmark-service", "the service of a firewall mark", value("mark")), opt("-6 --ipv6", "the mark's service of IPv6")}
	ofOneServer    = append(ofService[:len(ofService):len(ofService)], opt("-r --real-server", "of this real server alone", theServer))
	markConditions = []optionSyntax{
		opt("--interface", "packets that come in by it", value("name")),
		opt("--src", "packets from there", value("network")), opt("--dst", "packets to there", value("network")),
		opt("--proto", "packets of a protocol", theProtocol),
		opt("--sport", "packets from these ports", value("ports")), opt("--dport", "packets to these ports", value("ports")),
	}
)

// wordSyntaxes are the words of uvsadm. Who adds one adds it here, to words.txt and to man/uvsadm.8.
var wordSyntaxes = []syntax{
	{name: "status", help: "interfaces, workers, packets, drops, warnings", options: []optionSyntax{asJSON}},
	{name: "list", help: "services and real servers", options: append(ofService[:len(ofService):len(ofService)], asJSON)},
	{name: "connections", help: "connections and templates", options: append(ofService[:len(ofService):len(ofService)], asJSON)},
	{name: "timeouts", help: "timeouts of connections", options: []optionSyntax{asJSON}},
	{name: "daemons", help: "sync daemons", options: []optionSyntax{asJSON}},
	{name: "mark", help: "rules that give packets firewall marks", operand: valueSyntax{choices: []string{"list", "add", "del"}}},
	{name: "mark list", help: "the rules in their order", options: []optionSyntax{asJSON}},
	{name: "mark add", help: "add a rule", operand: value("mark"),
		options: append(markConditions[:len(markConditions):len(markConditions)], opt("--at", "its place among the others", value("position")))},
	{name: "mark del", help: "delete rules", operand: value("mark"), options: markConditions},
	{name: "sysctl", help: "print and change settings", operand: valueSyntax{name: "name", source: fromSettings}, options: []optionSyntax{
		opt("-a --all", "all of them"), opt("-n --values", "the values alone"), opt("-w --write", "accepted, as sysctl does"), asJSON}},
	{name: "save", help: "the table for -R", options: []optionSyntax{
		opt("--full", "with what -S leaves out"), opt("--names", "names instead of numbers"),
		opt("--yaml", "the configuration file as it would have to be"), opt("--write", "with --yaml: write it"), opt("-n --numeric", "numbers, as it does anyway")}},
	{name: "explain", help: "where a packet would go, and why", options: []optionSyntax{
		tcpOption, udpOption, opt("--from", "the client", value("client")), opt("--flags", "TCP's", value("flags")),
		opt("--length", "of the IP packet", value("bytes")), opt("--mark", "the packet's", value("mark")),
		opt("--interface", "that it comes in by", value("name")), asJSON}},
	{name: "reload", help: "read the configuration file again", options: []optionSyntax{
		opt("--prune", "take away what was made at run time"), opt("--dry-run", "only say what it would do"), asJSON}},
	{name: "diff", help: "what a reload would do", options: []optionSyntax{opt("--prune", "with what was made at run time taken away"), asJSON}},
	{name: "drain", help: "empty a real server", operand: theServer, options: append(ofService[:len(ofService):len(ofService)],
		opt("--by", "when the rest is cut: 5m, 17:30", value("time")), opt("--no-wait", "don't watch it"), asJSON)},
	{name: "undrain", help: "give a drained server its weight back", operand: theServer, options: append(ofService[:len(ofService):len(ofService)], asJSON)},
	{name: "shadow", help: "try schedulers out beside the one that decides", operand: valueSyntax{choices: []string{"report", "add", "del"}}},
	{name: "shadow report", help: "what they would have done", options: append(ofService[:len(ofService):len(ofService)], asJSON)},
	{name: "shadow add", help: "put schedulers on trial", operand: valueSyntax{name: "scheduler", choices: schedulers},
		options: append(ofService[:len(ofService):len(ofService)], asJSON)},
	{name: "shadow del", help: "end trials, all without a scheduler", operand: valueSyntax{name: "scheduler", choices: schedulers},
		options: append(ofService[:len(ofService):len(ofService)], asJSON)},
	{name: "check", help: "health checks of real servers", operand: valueSyntax{choices: []string{"add", "del", "list", "test", "policy"}}},
	{name: "check add", help: "have real servers asked", operand: valueSyntax{name: "kind", choices: checkKinds}, options: ofOneServer},
	{name: "check del", help: "take a check back", operand: value("id"), options: ofOneServer},
	{name: "check list", help: "what is set", options: append(ofService[:len(ofService):len(ofService)], asJSON)},
	{name: "check test", help: "ask once, and show every byte", operand: valueSyntax{name: "kind", choices: checkKinds},
		options: append(ofOneServer[:len(ofOneServer):len(ofOneServer)], asJSON)},
	{name: "check policy", help: "what follows from health", operand: value("option"), options: append(ofService[:len(ofService):len(ofService)], asJSON)},
	{name: "health", help: "how real servers stand", options: append(ofService[:len(ofService):len(ofService)],
		opt("--history", "with the last changes"), asJSON)},
	{name: "top", help: "a live view in the terminal", options: []optionSyntax{opt("-d --interval", "between two looks, such as 2s", value("time"))}},
	{name: "trace", help: "packets as they pass, with what becomes of them", options: []optionSyntax{
		opt("--client", "frames from or to it", value("address")), tcpOption, udpOption,
		opt("--sctp --sctp-service", "the SCTP service", theVIP),
		opt("-f --fwmark-service", "the service of a firewall mark", value("mark")), opt("-6 --ipv6", "the mark's service of IPv6"),
		opt("--server", "frames to or from the real server", theServer), opt("-i --interface", "frames received there", value("name")),
		opt("--verdict", "frames that end so", value("names")), opt("-c --count", "how many", value("count")),
		opt("--for", "how long, such as 10s", value("duration")),
		opt("-w --write", "a capture file for Wireshark", valueSyntax{name: "file", source: fromFiles}), asJSON}},
	{name: "doctor", help: "mistakes in the network around the director", options: []optionSyntax{asJSON}},
	{name: "import", help: "make uvs.yaml of ipvsadm's rules, keepalived.conf, ldirectord.cf or lvs.cf", operand: valueSyntax{name: "file", source: fromFiles},
		options: []optionSyntax{
			opt("--kind", "what the file is, if it can't be guessed", valueSyntax{name: "kind", choices: []string{"ipvsadm", "keepalived", "ldirectord", "lvs"}}),
			opt("--config-id", "what keepalived's conditions ask for, its -i", value("id")),
			opt("-o --output", "write there instead of to standard output", valueSyntax{name: "path", source: fromFiles}), opt("--json", "the report in JSON")}},
	{name: "completion", help: "a script that completes uvsadm's arguments", operand: valueSyntax{name: "shell", choices: []string{"bash", "zsh", "fish"}}},
	{name: "version", help: "the version of uvsd", options: []optionSyntax{asJSON}},
	{name: "help", help: "all words in short"},
}

// socketOption stands before everything else.
var socketOption = opt("--socket", "uvsd's socket", valueSyntax{name: "path", source: fromFiles})

// letterValues are what ipvsadm's options take, as far as it can be told.
var letterValues = map[string]valueSyntax{
	"--tcp-service": theVIP, "--udp-service": theVIP, "--sctp-service": theVIP, "--real-server": theServer,
	"--scheduler": {name: "scheduler", choices: schedulers},
	"--pe":        {name: "engine", choices: []string{"sip"}}, "--tun-type": {name: "type", choices: []string{"ipip", "gue", "gre"}},
	"--start-daemon": {name: "role", choices: []string{"master", "backup"}}, "--stop-daemon": {name: "role", choices: []string{"master", "backup"}},
	"--sched-flags": {name: "flags", choices: []string{"sh-fallback", "sh-port", "mh-fallback", "mh-port"}},
}

// letterHelp finds what usage.txt says of an option.
var letterHelp = regexp.MustCompile(`(?m)^  (--[a-z-]+)[ |].*  +([a-zA-Z].*)$`)

// letterSyntax is the syntax of ipvsadm's own language, from the table that it is parsed by.
func letterSyntax() syntax {
	help := map[string]string{}
	for _, m := range letterHelp.FindAllStringSubmatch(usageText, -1) {
		help[m[1]] = strings.TrimSuffix(m[2], ",")
	}
	s := syntax{name: letters, help: "ipvsadm's language"}
	for _, w := range wordTable {
		var o optionSyntax
		if w.short != 0 {
			o.names = append(o.names, "-"+string(w.short))
		}
		if w.long != "" {
			o.names = append(o.names, "--"+w.long)
			o.help = help["--"+w.long]
		}
		if w.arg != noValue {
			v, known := letterValues["--"+w.long]
			if !known {
				v = value(w.long)
			}
			o.value = v
		}
		s.options = append(s.options, o)
	}
	return s
}

// allSyntaxes are the letters and the words.
func allSyntaxes() []syntax { return append([]syntax{letterSyntax()}, wordSyntaxes...) }
