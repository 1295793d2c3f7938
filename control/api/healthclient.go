package api

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
)

// Health describes the health of all real servers, or of those of one service.
func (c *Client) Health(ctx context.Context, key *ServiceKey) ([]ServerHealth, error) {
	var query url.Values
	if key != nil {
		query = key.query()
	}
	var reply HealthReply
	err := c.call(ctx, http.MethodGet, "/v1/health", query, nil, 0, &reply)
	return reply.Servers, err
}

// TestChecks makes checks once; see [CheckTestRequest].
func (c *Client) TestChecks(ctx context.Context, req *CheckTestRequest) ([]CheckTest, error) {
	body, err := json.Marshal(req)
	if err != nil {
		return nil, err
	}
	var reply CheckTestReply
	err = c.call(ctx, http.MethodPost, "/v1/checktest", nil, body, 0, &reply)
	return reply.Tests, err
}
