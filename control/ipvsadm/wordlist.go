package ipvsadm

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"uvs/control/api"
)

// serviceOption reads an option that names a virtual service as ipvsadm does, but in numbers. ours is false if it is
// another option. The port may be missing, as a mark's family is: see withIPv6.
func serviceOption(option, text string) (key *api.ServiceKey, ours bool, err error) {
	protocol := ""
	switch option {
	case "-t", "--tcp-service":
		protocol = api.TCP
	case "-u", "--udp-service":
		protocol = api.UDP
	case "--sctp-service":
		protocol = api.SCTP
	case "-f", "--fwmark-service":
		mark, err := strconv.ParseUint(text, 0, 32)
		if err == nil && mark == 0 {
			err = errors.New("a mark is not 0")
		}
		return &api.ServiceKey{FWMark: uint32(mark), Family: api.IPv4}, true, err
	default:
		return nil, false, nil
	}
	a, err := serverArg(text)
	return &api.ServiceKey{Protocol: protocol, Address: a.Addr(), Port: a.Port()}, true, err
}

// withIPv6 makes of a mark's service that of IPv6, which -6 asks for.
func withIPv6(key *api.ServiceKey) error {
	if key == nil || key.FWMark == 0 {
		return errors.New("-6 goes with -f")
	}
	key.Family = api.IPv6
	return nil
}

// listArgs reads the arguments of words that list what all services have, or one.
func listArgs(args []string, services bool) (key *api.ServiceKey, asJSON bool, err error) {
	six := false
	for len(args) > 0 {
		option, text, joined := strings.Cut(args[0], "=")
		args = args[1:]
		switch {
		case option == "--json" && !joined && !asJSON:
			asJSON = true
			continue
		case services && !joined && (option == "-6" || option == "--ipv6"):
			six = true
			continue
		}
		if !services || !strings.HasPrefix(option, "-") || option == "--json" {
			return nil, false, fmt.Errorf("unexpected argument %s", option)
		}
		if !joined {
			if len(args) == 0 {
				return nil, false, fmt.Errorf("%s: a value is missing", option)
			}
			text, args = args[0], args[1:]
		}
		another, ours, err := serviceOption(option, text)
		switch {
		case err == nil && !ours:
			err = errors.New("no such option")
		case err == nil && key != nil:
			err = errors.New("one service at a time")
		}
		if err != nil {
			return nil, false, fmt.Errorf("%s %s: %w", option, text, err)
		}
		key = another
	}
	if six {
		err = withIPv6(key)
	}
	if err == nil && key != nil {
		err = key.Check()
	}
	return key, asJSON, err
}

// listWord is the words list, connections, timeouts and daemons.
func (r *run) listWord(word string, args []string) error {
	key, asJSON, err := listArgs(args, word == "list" || word == "connections")
	if err != nil {
		return r.complain(word, "%v", err)
	}
	req := &request{cmd: cmdList, given: setOf(optNumeric), labels: word == "list"}
	if key != nil {
		req.key, req.proto = *key, key.Protocol
	}
	switch word {
	case "list":
		if key != nil {
			req.given |= setOf(optService)
		}
		if asJSON {
			services, err := r.Backend.Services(r.ctx, key)
			if services == nil {
				services = []api.Service{}
			}
			return r.json(api.ServicesReply{Services: services}, err)
		}
	case "connections":
		if asJSON {
			enc := json.NewEncoder(r.out) // a line each: there may be millions
			return r.Backend.Connections(r.ctx, api.ConnectionFilter{Service: key}, func(c *api.Connection) error { return enc.Encode(c) })
		}
		return r.listConnections(r.printer(req.given), true, key)
	case "timeouts":
		if asJSON {
			t, err := r.Backend.Timeouts(r.ctx)
			return r.json(t, err)
		}
		req.given |= setOf(optTimeout)
	case "daemons":
		if asJSON {
			list, err := r.Backend.Daemons(r.ctx)
			if list == nil {
				list = []api.Daemon{}
			}
			return r.json(api.DaemonsReply{Daemons: list}, err)
		}
		req.given |= setOf(optDaemon)
	}
	return r.list(req)
}
