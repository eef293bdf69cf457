package main

import (
	"context"
	"fmt"
	"os"

	openapiclient "github.com/GIT_USER_ID/GIT_REPO_ID"
)

func must[T any](value T, _ any, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func main() {
	configuration := openapiclient.NewConfiguration()
	configuration.Servers = openapiclient.ServerConfigurations{{URL: os.Args[1]}}
	client := openapiclient.NewAPIClient(configuration)
	ctx := context.WithValue(context.Background(), openapiclient.ContextAccessToken, os.Args[2])
	video, err := os.Open(os.Args[3])
	if err != nil {
		panic(err)
	}
	file := must(client.FilesAPI.UploadFile(ctx).File(video).Execute()).File
	options := openapiclient.NewUpscaleRequest()
	options.SetFileId(file.Id)
	options.SetTargetFps(23.976)
	render := must(client.RendersAPI.Upscale(ctx).UpscaleRequest(*options).Execute()).Render
	for render.Status != openapiclient.COMPLETED && render.Status != openapiclient.FAILED {
		render = must(client.RendersAPI.GetRender(ctx, render.Id).Execute()).Render
	}
	request := openapiclient.NewWebhookRequest("http://127.0.0.1:9/hook")
	webhook := must(client.WebhooksAPI.CreateWebhook(ctx).WebhookRequest(*request).Execute()).Webhook
	fmt.Println(file.SizeBytes, render.Status, *render.TargetFpsExact, webhook.Url)
}
