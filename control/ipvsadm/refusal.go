package ipvsadm

import (
	"errors"

	"uvs/control/api"
)

// words are ipvsadm's for what the kernel refuses, for all commands that have no better ones.
var words = map[api.Code]string{
	api.ServiceExists:    "Service already exists",
	api.ServiceNotFound:  "No such service",
	api.ServerExists:     "Destination already exists",
	api.ServerNotFound:   "No such destination",
	api.NoScheduler:      "Scheduler or persistence engine not found",
	api.OutOfRange:       "Numerical result out of range",
	api.Invalid:          "Invalid operation.  Possibly wrong module version, address not unicast, ...",
	api.DaemonExists:     "Daemon has already run",
	api.DaemonNotRunning: "No daemon is running",
	api.NoDevice:         "No such device",
	api.NoMemory:         "Memory allocation problem",
}

// refusal puts an error from uvsd into ipvsadm's words. What those have no word for is said in uvsd's. nil stays nil.
func refusal(cmd command, err error) error {
	code := api.Code("")
	if err == nil || !errors.As(err, &code) {
		return err
	}
	text, ok := words[code]
	if code == api.ServiceNotFound && (cmd == cmdAddServer || cmd == cmdEditServer || cmd == cmdDeleteServer) {
		text = "Service not defined"
	}
	if !ok {
		return err
	}
	return &failure{text: text, exit: exitRefused}
}
