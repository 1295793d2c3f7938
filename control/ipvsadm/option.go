package ipvsadm

// command is what a command line asks for.
type command uint8

const (
	cmdAddService command = iota + 1
	cmdEditService
	cmdDeleteService
	cmdFlush
	cmdAddServer
	cmdEditServer
	cmdDeleteServer
	cmdList
	cmdRestore
	cmdSave
	cmdZero
	cmdSet
	cmdStartDaemon
	cmdStopDaemon
	cmdHelp
	cmdVersion
)

// commandNames are those in messages.
var commandNames = map[command]string{
	cmdAddService: "add-service", cmdEditService: "edit-service", cmdDeleteService: "delete-service", cmdFlush: "flush",
	cmdAddServer: "add-server", cmdEditServer: "edit-server", cmdDeleteServer: "delete-server",
	cmdList: "list", cmdRestore: "restore", cmdSave: "save", cmdZero: "zero", cmdSet: "set",
	cmdStartDaemon: "start-daemon", cmdStopDaemon: "stop-daemon",
}

// option is what a command line says beside its command. Its values are in the order in which a missing or illegal one
// is reported.
type option uint8

const (
	optNumeric option = iota
	optConnection
	optService
	optScheduler
	optPersistent
	optNetmask
	optServer
	optMethod
	optWeight
	optUpper
	optLower
	optMcastInterface
	optTimeout
	optDaemon
	optStats
	optRate
	optThresholds
	optPersistentConn
	optNoSort
	optSyncID
	optExact
	optOnePacket
	optEngine
	optSchedFlags
	optMcastGroup
	optMcastPort
	optMcastTTL
	optSyncMaxLen
	optTunInfo
	optTunType
	optTunPort
	optTunNoCsum
	optTunCsum
	optTunRemCsum
	numOptions
)

// optionNames are those in messages.
var optionNames = [numOptions]string{
	"numeric", "connection", "service-address", "scheduler", "persistent", "netmask", "real-server", "forwarding-method",
	"weight", "u-threshold", "l-threshold", "mcast-interface", "timeout", "daemon", "stats", "rate", "thresholds",
	"persistent-conn", "nosort", "syncid", "exact", "ops", "pe", "sched-flags", "mcast-group", "mcast-port", "mcast-ttl",
	"sync-maxlen", "tun-info", "tun-type", "tun-port", "tun-nocsum", "tun-csum", "tun-remcsum",
}

// optionSet is a set of options.
type optionSet uint64

func setOf(opts ...option) (s optionSet) {
	for _, o := range opts {
		s |= 1 << o
	}
	return s
}

func (s optionSet) has(o option) bool { return s&(1<<o) != 0 }

// takes says which options a command needs and which it may have. All others are illegal with it.
type takes struct{ needed, allowed optionSet }

var (
	serviceTakes = takes{
		needed:  setOf(optService),
		allowed: setOf(optScheduler, optPersistent, optNetmask, optOnePacket, optEngine, optSchedFlags),
	}
	serverTakes = takes{
		needed: setOf(optService, optServer),
		allowed: setOf(optMethod, optWeight, optUpper, optLower, optTunType, optTunPort, optTunNoCsum, optTunCsum,
			optTunRemCsum),
	}
)

var commandTakes = map[command]takes{
	cmdAddService:    serviceTakes,
	cmdEditService:   serviceTakes,
	cmdDeleteService: {needed: setOf(optService)},
	cmdFlush:         {},
	cmdAddServer:     serverTakes,
	cmdEditServer:    serverTakes,
	cmdDeleteServer:  {needed: setOf(optService, optServer)},
	cmdList: {allowed: setOf(optService, optNumeric, optConnection, optTimeout, optDaemon, optStats, optRate, optThresholds,
		optPersistentConn, optNoSort, optSyncID, optExact, optTunInfo)},
	cmdRestore:     {},
	cmdSave:        {allowed: setOf(optNumeric)},
	cmdZero:        {allowed: setOf(optService)},
	cmdSet:         {},
	cmdStartDaemon: {allowed: setOf(optMcastInterface, optSyncID, optSyncMaxLen, optMcastGroup, optMcastPort, optMcastTTL)},
	cmdStopDaemon:  {allowed: setOf(optSyncID)},
}

// tunnelTakes is the same for a kind of tunnel, about the options from optTunPort on.
var tunnelTakes = map[string]takes{
	"ipip": {},
	"gue":  {needed: setOf(optTunPort), allowed: setOf(optTunNoCsum, optTunCsum, optTunRemCsum)},
	"gre":  {allowed: setOf(optTunNoCsum, optTunCsum)},
}

// argument says whether a word of the command line takes a value.
type argument uint8

const (
	noValue argument = iota
	needsValue
	mayHaveValue
)

// word is an entry of the table of all that may begin with a hyphen.
type word struct {
	short byte // 0 for none
	long  string
	arg   argument
	// Either cmd is set, or read, which takes the value into the request, or neither: --sort is accepted and means nothing.
	cmd  command
	read func(*request, string, bool) error
}

// wordTable has the words of ipvsadm 1.31.
var wordTable = []word{
	{short: 'A', long: "add-service", cmd: cmdAddService},
	{short: 'E', long: "edit-service", cmd: cmdEditService},
	{short: 'D', long: "delete-service", cmd: cmdDeleteService},
	{short: 'C', long: "clear", cmd: cmdFlush},
	{short: 'L', long: "list", cmd: cmdList},
	{short: 'l', cmd: cmdList},
	{short: 'Z', long: "zero", cmd: cmdZero},
	{short: 'a', long: "add-server", cmd: cmdAddServer},
	{short: 'e', long: "edit-server", cmd: cmdEditServer},
	{short: 'd', long: "delete-server", cmd: cmdDeleteServer},
	{short: 'R', long: "restore", cmd: cmdRestore},
	{short: 'S', long: "save", cmd: cmdSave},
	{long: "set", cmd: cmdSet},
	{long: "start-daemon", arg: needsValue, cmd: cmdStartDaemon},
	{long: "stop-daemon", arg: needsValue, cmd: cmdStopDaemon},
	{short: 'h', long: "help", cmd: cmdHelp},
	{short: 'v', long: "version", cmd: cmdVersion},

	{short: 't', long: "tcp-service", arg: needsValue, read: service("tcp")},
	{short: 'u', long: "udp-service", arg: needsValue, read: service("udp")},
	{long: "sctp-service", arg: needsValue, read: service("sctp")},
	{short: 'f', long: "fwmark-service", arg: needsValue, read: (*request).mark},
	{short: '6', long: "ipv6", read: (*request).ipv6},
	{short: 's', long: "scheduler", arg: needsValue, read: (*request).scheduler},
	{short: 'p', long: "persistent", arg: mayHaveValue, read: (*request).persistent},
	{short: 'M', long: "netmask", arg: needsValue, read: (*request).netmask},
	{long: "pe", arg: needsValue, read: (*request).engine},
	{short: 'o', long: "ops", read: (*request).onePacket},
	{short: 'b', long: "sched-flags", arg: needsValue, read: (*request).schedFlags},

	{short: 'r', long: "real-server", arg: needsValue, read: (*request).realServer},
	{short: 'm', long: "masquerading", read: method("masq")},
	{short: 'i', long: "ipip", read: method("tunnel")},
	{short: 'g', long: "gatewaying", read: method("route")},
	{short: 'w', long: "weight", arg: needsValue, read: (*request).weight},
	{short: 'x', long: "u-threshold", arg: needsValue, read: (*request).upper},
	{short: 'y', long: "l-threshold", arg: needsValue, read: (*request).lower},
	{long: "tun-type", arg: needsValue, read: (*request).tunType},
	{long: "tun-port", arg: needsValue, read: (*request).tunPort},
	{long: "tun-nocsum", read: flag(optTunNoCsum)},
	{long: "tun-csum", read: flag(optTunCsum)},
	{long: "tun-remcsum", read: flag(optTunRemCsum)},

	{short: 'n', long: "numeric", read: flag(optNumeric)},
	{short: 'c', long: "connection", read: flag(optConnection)},
	{long: "timeout", read: flag(optTimeout)},
	{long: "daemon", read: flag(optDaemon)},
	{long: "stats", read: flag(optStats)},
	{long: "rate", read: flag(optRate)},
	{long: "thresholds", read: flag(optThresholds)},
	{long: "persistent-conn", read: flag(optPersistentConn)},
	{long: "tun-info", read: flag(optTunInfo)},
	{long: "exact", read: flag(optExact)},
	{long: "nosort", read: flag(optNoSort)},
	{long: "sort"},

	{long: "mcast-interface", arg: needsValue, read: (*request).mcastInterface},
	{long: "syncid", arg: needsValue, read: (*request).syncID},
	{long: "sync-maxlen", arg: needsValue, read: (*request).syncMaxLen},
	{long: "mcast-group", arg: needsValue, read: (*request).mcastGroup},
	{long: "mcast-port", arg: needsValue, read: (*request).mcastPort},
	{long: "mcast-ttl", arg: needsValue, read: (*request).mcastTTL},
}
