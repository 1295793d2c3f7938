package ipvsadm

import (
	"errors"
	"slices"
	"strings"

	"uvs/control/api"
)

// errTryHelp is the answer to a command line that does not begin with a command.
var errTryHelp = errors.New("try help")

// parse reads a command line without the program's name. Its error is errTryHelp, a *usageError or a *failure.
// restoring is set for a line of -R, which may not hold another -R.
func parse(args []string, l *lookup, restoring bool) (*request, error) {
	s := &scanner{args: args}
	r := &request{lookup: l, serve: api.ServerConfig{Method: api.Route, Weight: 1}, tunnel: api.TunnelConfig{Type: api.IPIP}}
	w, value, _, err := s.next()
	if err != nil || w == nil || w.cmd == 0 || (w.cmd == cmdRestore && restoring) {
		return nil, errTryHelp
	}
	r.cmd = w.cmd
	switch r.cmd {
	case cmdHelp, cmdVersion:
		return r, nil // whatever follows
	case cmdStartDaemon, cmdStopDaemon:
		r.daemon.Role = value
		if value != api.Master && value != api.Backup {
			return nil, failf("illegal %s specified", map[command]string{
				cmdStartDaemon: "start-daemon parameter", cmdStopDaemon: "start_daemon", // the original's slip
			}[r.cmd])
		}
	}
	for {
		w, value, has, err := s.next()
		switch {
		case err != nil:
			return nil, err
		case w == nil:
			return r, r.finish(s.rest)
		case w.cmd != 0:
			return nil, failf("invalid option `%s'", s.word)
		case w.read != nil:
			if err := w.read(r, value, has); err != nil {
				return nil, err
			}
		}
	}
}

// finish checks what can be checked only when the whole line is known, in ipvsadm's order, and fills in defaults.
func (r *request) finish(rest []string) error {
	if r.cmd == cmdSet {
		if len(rest) < 3 {
			return failf("--set option requires 3 timeout values")
		}
		for i, t := range []*uint32{&r.timeout.TCP, &r.timeout.TCPFin, &r.timeout.UDP} {
			var err error
			if *t, err = seconds(rest[i], 0); err != nil {
				return err
			}
		}
		rest = rest[3:]
	}
	if len(rest) > 0 {
		return failf("unexpected argument %s", rest[0])
	}
	if err := r.finishFlags(); err != nil {
		return err
	}
	if r.cmd == cmdList {
		if err := r.checkKinds(); err != nil {
			return err
		}
	}
	if err := r.checkOptions(); err != nil {
		return err
	}
	switch r.cmd {
	case cmdList:
		return r.checkColumns()
	case cmdAddService, cmdEditService:
		return r.finishService()
	case cmdAddServer, cmdEditServer:
		return r.finishServer()
	}
	return nil
}

// finishFlags looks at the scheduler's flags once the scheduler is known.
func (r *request) finishFlags() error {
	for name := range strings.SplitSeq(r.flags, ",") {
		if name == "" {
			continue
		}
		if _, err := api.ParseSchedFlags(r.config.Scheduler, []string{name}); err == nil {
			r.config.SchedFlags = append(r.config.SchedFlags, name)
			continue
		}
		for _, scheduler := range []string{"sh", "mh"} {
			if _, err := api.ParseSchedFlags(scheduler, []string{name}); err == nil {
				return failf("incompatible scheduler flag `%s'", name)
			}
		}
		return failf("invalid scheduler flag `%s'", name)
	}
	return nil
}

// checkOptions finds the first option that is missing or does not belong.
func (r *request) checkOptions() error {
	t := commandTakes[r.cmd]
	for o := range numOptions {
		if t.needed.has(o) && !r.given.has(o) {
			return failf("You need to supply the '%s' option for the '%s' command", optionNames[o], commandNames[r.cmd])
		}
		if r.given.has(o) && !t.needed.has(o) && !t.allowed.has(o) {
			return failf("Illegal '%s' option with the '%s' command", optionNames[o], commandNames[r.cmd])
		}
	}
	return nil
}

// checkKinds finds two kinds of listing asked for at once.
func (r *request) checkKinds() error {
	kinds := []option{optConnection, optService, optTimeout, optDaemon}
	for i, a := range kinds {
		for _, b := range kinds[i+1:] {
			if r.given.has(a) && r.given.has(b) {
				return failf("The option '%s' conflicts with the '%s' option in the 'list' command", optionNames[b], optionNames[a])
			}
		}
	}
	return nil
}

// checkColumns finds columns of the table asked for in another listing.
func (r *request) checkColumns() error {
	if r.given&setOf(optConnection, optTimeout, optDaemon) != 0 && r.given&setOf(optStats, optRate, optThresholds) != 0 ||
		r.given&setOf(optTimeout, optDaemon) != 0 && r.given.has(optPersistentConn) {
		return failf("options conflicts in the list command")
	}
	return nil
}

// defaultScheduler is ipvsadm's, of an edited service as well.
const defaultScheduler = "wlc"

func (r *request) finishService() error {
	if r.key.FWMark == 0 && r.key.Port == 0 && r.config.PersistenceSeconds == 0 {
		return failf("Zero port specified for non-persistent service")
	}
	if r.config.OnePacket && r.key.FWMark == 0 && r.key.Protocol != api.UDP {
		return failf("One-Packet Scheduling is only for UDP virtual services")
	}
	if r.config.Scheduler == "" {
		r.config.Scheduler = defaultScheduler
	}
	return nil
}

func (r *request) finishServer() error {
	if r.key.FWMark == 0 && r.serve.Method != api.Masq {
		r.server.Port = r.key.Port // nothing on the way could change it
	}
	if r.server.Address.Is6() != r.is6 && r.serve.Method != api.Tunnel {
		return failf("Different address family is allowed only for tunneling servers")
	}
	options := []option{optTunType, optTunPort, optTunNoCsum, optTunCsum, optTunRemCsum}
	if r.serve.Method != api.Tunnel {
		if r.given&setOf(options...) != 0 {
			return failf("Tunnel options conflict with forward method")
		}
		return nil
	}
	t := tunnelTakes[r.tunnel.Type]
	for _, o := range options[1:] {
		if t.needed.has(o) && !r.given.has(o) {
			return failf("You need to supply the '%s' option for the '%s' tunnel type", optionNames[o], r.tunnel.Type)
		}
		if r.given.has(o) && !t.needed.has(o) && !t.allowed.has(o) {
			return failf("Illegal '%s' option with the '%s' tunnel type", optionNames[o], r.tunnel.Type)
		}
	}
	sums := []option{optTunNoCsum, optTunCsum, optTunRemCsum}
	for i, a := range sums {
		for _, b := range sums[i+1:] {
			if r.given.has(a) && r.given.has(b) {
				return failf("The option '%s' conflicts with the '%s' option in the '%s' tunnel type", optionNames[b], optionNames[a], r.tunnel.Type)
			}
		}
	}
	if i := slices.IndexFunc(sums, r.given.has); i >= 0 {
		r.tunnel.Checksum = []string{api.NoChecksum, api.Checksum, api.RemoteChecksum}[i]
	}
	r.serve.Tunnel = &r.tunnel
	return nil
}

// op returns the operation that a command line asks for, or nil when it changes nothing.
func (r *request) op() *api.Op {
	switch r.cmd {
	case cmdAddService:
		return &api.Op{Kind: api.AddService, Service: &r.key, ServiceConfig: &r.config}
	case cmdEditService:
		return &api.Op{Kind: api.EditService, Service: &r.key, ServiceConfig: &r.config}
	case cmdDeleteService:
		return &api.Op{Kind: api.DeleteService, Service: &r.key}
	case cmdFlush:
		return &api.Op{Kind: api.Flush}
	case cmdAddServer:
		return &api.Op{Kind: api.AddServer, Service: &r.key, Server: &r.server, ServerConfig: &r.serve}
	case cmdEditServer:
		return &api.Op{Kind: api.EditServer, Service: &r.key, Server: &r.server, ServerConfig: &r.serve}
	case cmdDeleteServer:
		return &api.Op{Kind: api.DeleteServer, Service: &r.key, Server: &r.server}
	case cmdZero:
		op := &api.Op{Kind: api.ZeroCounters}
		if r.given.has(optService) {
			op.Service = &r.key
		}
		return op
	case cmdSet:
		return &api.Op{Kind: api.SetTimeouts, Timeouts: &r.timeout}
	case cmdStartDaemon:
		return &api.Op{Kind: api.StartDaemon, Daemon: &r.daemon}
	case cmdStopDaemon:
		return &api.Op{Kind: api.StopDaemon, Daemon: &api.Daemon{Role: r.daemon.Role}}
	}
	return nil
}
