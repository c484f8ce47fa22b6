# What stands behind the shop. A resource that needs no provider keeps the example small: it remembers which image the
# infrastructure was last applied for.
terraform {
  # The state is kept with this project in GitLab; infra.yml says where, and who may, by variables.
  backend "http" {}
}

variable "image_repository" { type = string }
variable "image_tag" { type = string }
variable "image_digest" { type = string }
variable "source_project" { type = string }
variable "source_commit" { type = string }

resource "terraform_data" "deployed" {
  input = {
    image  = "${var.image_repository}:${var.image_tag}@${var.image_digest}"
    source = "${var.source_project}@${var.source_commit}"
  }
}

# A pipeline that was started without an image, such as the watch for drift, takes these from the last apply.
output "image_repository" { value = var.image_repository }
output "image_tag" { value = var.image_tag }
output "image_digest" { value = var.image_digest }
output "source_project" { value = var.source_project }
output "source_commit" { value = var.source_commit }
