import java.io.File;
import java.net.URI;
import org.openapitools.client.ApiClient;
import org.openapitools.client.api.FilesApi;
import org.openapitools.client.api.RendersApi;
import org.openapitools.client.api.WebhooksApi;
import org.openapitools.client.model.Render;
import org.openapitools.client.model.RenderStatus;
import org.openapitools.client.model.UpscaleRequest;
import org.openapitools.client.model.VideoFile;
import org.openapitools.client.model.Webhook;
import org.openapitools.client.model.WebhookRequest;

public class Use {
  public static void main(String[] arguments) throws Exception {
    ApiClient client = new ApiClient();
    client.updateBaseUri(arguments[0]);
    client.setRequestInterceptor(request -> request.header("Authorization", "Bearer " + arguments[1]));
    VideoFile file = new FilesApi(client).uploadFile(new File(arguments[2]), null).getFile();
    RendersApi renders = new RendersApi(client);
    UpscaleRequest options = new UpscaleRequest().fileId(file.getId()).targetFps(23.976);
    Render render = renders.upscale(options, null).getRender();
    while (render.getStatus() != RenderStatus.COMPLETED && render.getStatus() != RenderStatus.FAILED) {
      render = renders.getRender(render.getId()).getRender();
    }
    WebhookRequest request = new WebhookRequest().url(URI.create("http://127.0.0.1:9/hook"));
    Webhook webhook = new WebhooksApi(client).createWebhook(request, null).getWebhook();
    System.out.println(file.getSizeBytes() + " " + render.getStatus() + " " + render.getTargetFpsExact() + " "
        + webhook.getUrl());
  }
}
